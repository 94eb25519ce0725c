"""The local record as one page, for the data officer who says whether a set may leave.

It shows more than ever leaves: figures of audits, and radiographs of patients beside the synthetic
images that resemble them. It stays in the site's own state directory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup

from fedcondense.config.study import ImageSpec, Study
from fedcondense.exchange.contribution import Payload, decode_payload
from fedcondense.exchange.guarantee import percent_up, rounded_up
from fedcondense.exchange.keys import fingerprint_digits
from fedcondense.exchange.release_record import Refusal
from fedcondense.files.page import Page, picture
from fedcondense.files.storage import canonical_json, write_atomically
from fedcondense.privacy.findings import AuditResult, Audits
from fedcondense.privacy.plain_words import REFUSALS, TRIED, Said, said, telling

PAGE = Page("fedcondense.privacy", "release_record.html")
SHOWN = 10  # images of one class: a page, not an archive
TELLING = 6  # findings of one audit; all of them stand below, folded
PAIRS = 12
SMALL_CLASS = 200  # training images; below it, sets from noise were measured to leak
WIDTH = 72  # of a picture on the page


@dataclass(frozen=True)
class Likeness:
    """A synthetic picture and the training picture that it is most like; both of one size.

    `likeness` is at most 1, which is the same picture. `part` says what of an image they are.
    """

    synthetic: UInt8[np.ndarray, "c h w"]
    real: UInt8[np.ndarray, "c h w"]
    class_name: str
    likeness: float
    part: str = "whole image"


@dataclass(frozen=True)
class Approving:
    """Whether the site lets nothing leave unapproved, by whose key, and whether that was given.

    `command` is what the officer types.
    """

    needed: bool
    officer: str | None
    given: bool
    command: str


@dataclass(frozen=True)
class LocalRecord:
    """All that a page shows of one payload.

    Attributes:
        site: the hospital's name in the study.
        study: what all sites agreed on.
        payload: the bytes that would leave.
        record: the copy of the record that would leave with them.
        audits: what was found on the payload, if anything was tried.
        training: images of each class that the set was made from.
        likenesses: the pairs that are shown, the most alike first.
        approving: how the set is approved.
        about: what the site says of its data, by subject.
    """

    site: str
    study: Study
    payload: Payload
    record: Mapping[str, Any]
    audits: Audits | None
    training: Mapping[str, int]
    likenesses: tuple[Likeness, ...]
    approving: Approving
    about: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Audit:
    """An audit on the page; `verdict` is the record's, which alone counts."""

    name: str
    verdict: str
    tried: str
    telling: tuple[Said, ...]
    all: tuple[Said, ...]
    note: str


@dataclass(frozen=True)
class _Strip:
    class_name: str
    pictures: tuple[Markup, ...]
    images: int


@dataclass(frozen=True)
class _Pair:
    synthetic: Markup
    real: Markup
    of: Likeness


def write_record_page(path: Path, local: LocalRecord) -> None:
    """Write the page so that only this user reads it; equal arguments give equal bytes."""
    write_atomically(path, PAGE.render(page_values(local)), mode=0o600)


def page_values(local: LocalRecord) -> dict[str, object]:
    """What the template shows."""
    record = local.record
    return {
        "site": local.site,
        "study": local.study.name,
        "record": record,
        "reasons": [REFUSALS[Refusal(word)] for word in record["refusals"]],
        "audits": [_audit(name, local) for name in TRIED],
        "strips": _strips(local),
        "pairs": [_pair(likeness) for likeness in local.likenesses[:PAIRS]],
        "training": dict(local.training),
        "about": dict(local.about),
        "unaudited": record["refusals"] == [Refusal.AUDIT_MISSING],
        "small": [name for name, images in local.training.items() if images < SMALL_CLASS],
        "small_class": SMALL_CLASS,
        "approving": local.approving,
        "state": _state(local),
        "allowed": _allowed(record),
        "leaves": [(key, _as_text(value)) for key, value in sorted(record.items())],
        "digest": grouped(record["payload_sha256"]),
        "officer": local.approving.officer and grouped(local.approving.officer),
    }


def grouped(digest: str) -> str:
    """64 hex digits in 16 groups of 4, as they are read out."""
    return " ".join(re.findall("....", fingerprint_digits(digest)))


def on_screen(payload: Payload, spec: ImageSpec) -> UInt8[np.ndarray, "n c h w"]:
    """The images of a payload in the grey levels of radiographs, as networks are shown them."""
    values = decode_payload(payload).images * spec.std + spec.mean
    return np.rint(np.clip(values * 255, 0, 255)).astype(np.uint8)


def _state(local: LocalRecord) -> str:
    """`refused`, `simulation`, `waiting`, `approved` or `passed`."""
    if local.record["refusals"]:
        return "refused"
    if local.record["purpose"] == "simulation":
        return "simulation"
    if not local.approving.needed:
        return "passed"
    return "approved" if local.approving.given else "waiting"


def _allowed(record: Mapping[str, Any]) -> dict[str, str] | None:
    """What any attacker may reach, rounded up: percentages, and an area."""
    if "attacker" not in record["privacy"]:
        return None
    attacker = record["privacy"]["attacker"]
    return {
        "tenth": percent_up(attacker["tpr_at_fpr_tenth_percent"]),
        "one": percent_up(attacker["tpr_at_fpr_one_percent"]),
        "auc": rounded_up(attacker["auc"], "0.001"),
    }


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else canonical_json(value).decode("ascii")


def _audit(name: str, local: LocalRecord) -> _Audit:
    result = _result_of(name, local)
    findings = result.findings if result else ()
    nearest = telling(result, TELLING) if result else ()
    classes = local.study.classes
    return _Audit(
        name=name,
        verdict=local.record["audits"][name],
        tried=TRIED[name],
        telling=tuple(said(finding, classes) for finding in nearest),
        all=tuple(said(finding, classes) for finding in findings),
        note=result.note if result else "",
    )


def _result_of(name: str, local: LocalRecord) -> AuditResult | None:
    """What was found on another payload is not shown beside this one."""
    audits = local.audits
    if audits is None or audits.payload_sha256 != local.payload.sha256:
        return None
    return next((result for result in audits.results if result.audit == name), None)


def _strips(local: LocalRecord) -> list[_Strip]:
    images, labels = on_screen(local.payload, local.study.image), local.payload.label_array()
    strips = []
    for label, name in enumerate(local.study.classes):
        of_class = images[labels == label]
        shown = (picture(image, f"synthetic, {name}", width=WIDTH) for image in of_class[:SHOWN])
        if len(of_class):
            strips.append(_Strip(name, tuple(shown), len(of_class)))
    return strips


def _pair(likeness: Likeness) -> _Pair:
    name = likeness.class_name
    return _Pair(
        picture(likeness.synthetic, f"synthetic, {name}", width=WIDTH),
        picture(likeness.real, f"real, {name}, stays at this hospital", width=WIDTH),
        likeness,
    )
