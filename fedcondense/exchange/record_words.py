"""The fixed sentences of a release record; none is written anywhere else, and none is free text.

Which words are allowed is the subject: a record never says more of a set than was shown. Without
differential privacy there is no formal guarantee, and a passed audit bounds only the attacks run.
"""

from __future__ import annotations

from collections.abc import Mapping

from fedcondense.config.privacy import Declared, Unit

NO_GUARANTEE = "No formal privacy guarantee."
NOT_BOUNDED = "not bounded"
RELATION = "add/remove"
NOISE_SOURCE = "a secret generator seeded by the operating system, never the study's seed"
PUBLIC_MAPS = "random feature maps from the study's public seed"
PUBLIC_IMAGES = "public images"
WITHDRAWAL = (
    "A withdrawn patient cannot be removed from an issued set; the next round is reissued without."
)
_COMMON = (
    "the set starts from noise, from public images or from earlier noised output",
    "normalisation constants are the study's, never computed from patients",
    "declared numbers and the list of classes are public, counts of classes carry noise",
    "no setting, stopping point or iterate was chosen by looking at patients",
    "records are left out one by one, never because of other records",
    "no metric, log line or number of examples leaves without noise; "
    "when a reply arrives is not covered",
    "all rounds and repetitions are charged to one ledger, crashed ones too",
    "the gate's verdict is not covered: at most one bit for each attempt",
)
ASSUMPTIONS: Mapping[str, tuple[str, ...]] = {
    "dp-embed": (
        *_COMMON,
        "feature maps are fixed before an image is read",
        "the noise is drawn once, when the sums are made",
    ),
    "dp-sgd": (
        *_COMMON,
        "experts start from random weights and have no batch normalisation",
        "batches are Poisson samples, and which images they hold stays secret",
    ),
}
_START = {"noise": "noise", "public": "public images", "real": "real images"}
_RISKS: Mapping[str, str] = {
    "none": "Nothing bounds what an attack that was not run could learn about a patient.",
    "image": (
        "The guarantee covers one image: k images of one patient together are covered only with "
        "k times epsilon and a larger delta. What is true of many patients can be learned from "
        "the set."
    ),
    "patient": (
        "The guarantee covers one patient with all images. "
        "What is true of many patients can be learned from the set."
    ),
    "refused": "The gate refused this set: it may show single patients.",
}


def shown_method(method: str, mode: str) -> str:
    """The method's name in records and tables: under dp-embed it is an algorithm of its own."""
    return f"{method} ({mode})" if mode == "dp-embed" else method


def public_inputs(mode: str, start: str) -> list[str]:
    """What the set was made from beside the site's own images."""
    used = {PUBLIC_MAPS: mode == "dp-embed", PUBLIC_IMAGES: start == "public"}
    return [words for words, holds in used.items() if holds]


def contents_sentence(images: int, declared: Declared | None, start: str, *, passed: bool) -> str:
    """What the set holds, and where its pixels began."""
    records = "an undeclared number of" if declared is None else str(declared.images)
    original = "; no original image is included" if passed else ""
    began = _START.get(start, "unknown")
    return (
        f"Contains {images} synthetic images optimised from {records} records; "
        f"started from {began}{original}."
    )


def audit_sentence(audits: Mapping[str, str]) -> str:
    """Which audits were run, and their verdicts; no figure leaves."""
    verdicts = [f"{name} {verdict.replace('-', ' ')}" for name, verdict in audits.items()]
    return f"Empirical audit: {', '.join(verdicts)}."


def closing_sentence(*, passed: bool) -> str:
    """What follows from the verdict for whoever holds the set."""
    if passed:
        return "A passed audit bounds only the attacks run. Treat as personal data under contract."
    return "For study on one machine, not for release. Treat as personal data under contract."


def residual_risk(unit: Unit | None, *, passed: bool) -> str:
    """What remains, by guarantee, unit of privacy and verdict."""
    if not passed:
        return _RISKS["refused"]
    return _RISKS["none" if unit is None else unit.value]


def recipients(purpose: str) -> str:
    """Who gets the set."""
    if purpose == "simulation":
        return "nobody: a study on one machine"
    return "the study's server, and united with the sets of other sites all sites of the study"


def retention(purpose: str) -> str:
    """How long it is kept."""
    if purpose == "simulation":
        return "until the study on one machine is deleted"
    return "a site's set until the global set is made, the global set as the contract says"
