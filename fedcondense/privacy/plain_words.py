"""Refusals, audits and findings in the words of a record's page, for people who know no statistics.

A statistic without words of its own here is shown by its name: nothing that was found is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fedcondense.exchange.release_record import Refusal
from fedcondense.privacy.findings import AuditResult, Finding, Verdict

REFUSALS: Mapping[Refusal, str] = {
    Refusal.MISSING: "it is not written down how the set came about",
    Refusal.CONTRADICTORY: "what is written down of the set is not what the study asks for",
    Refusal.REAL_START: "the synthetic images began as radiographs of patients",
    Refusal.CORESET: "the images are radiographs of patients, picked and not made",
    Refusal.NOT_FINITE: "a value in the set is no number",
    Refusal.CONSTANT: "an image shows nothing",
    Refusal.DUPLICATE: "an image stands in the set twice",
    Refusal.LEDGER: "not every look at patients was paid for in the ledger",
    Refusal.AUDIT_MISSING: "an audit that was asked for has not been run on this very set",
    Refusal.AUDIT_MEMORISATION: "the set is closer to the patients it was made from than to others",
    Refusal.AUDIT_MEMBERSHIP: "it can be told from the set who was among its patients",
}
TRIED: Mapping[str, str] = {
    "memorisation": (
        "Synthetic images, whole and in parts, were held against two groups of real ones: those "
        "the set was made from, and those of patients it never saw. If it remembers nobody, it is "
        "as far from the first as from the second."
    ),
    "membership": (
        "Sets were made again from random halves of the patients. The attacker tries to tell, from "
        "a set alone, which patients it was made from."
    ),
}
# What is found of `value` (of a share: in percent) among `n`; a name that is not here is shown.
_SHARES: Mapping[str, str] = {
    "nearest-in-train": (
        "{value} of {n} pictures have their nearest radiograph among the patients used, the others "
        "among patients never seen"
    ),
    "closer-than-held-out": (
        "of the {n} pictures closest to the patients used, {value} are synthetic, the others are "
        "of patients never seen"
    ),
    "stands-out": (
        "of the {n} pictures that are most clearly nearer to one of the patients used than to all "
        "others, {value} are synthetic, the others are of patients never seen"
    ),
    "tpr-at-1.0%": (
        "the attacker finds {value} of those who took part when 1.0 % of the others are named "
        "wrongly; of {n} patients"
    ),
    "tpr-at-0.1%": (
        "the attacker finds {value} of those who took part when 0.1 % of the others are named "
        "wrongly; of {n} patients"
    ),
}
_NUMBERS: Mapping[str, str] = {
    "auc": (
        "of one patient who took part and one who did not, the attacker picks the right one with "
        "a probability of {value} (0.5: guessing); of {n} patients"
    ),
    "closest": (
        "the closest of {n} pictures has a likeness of {value} (1: the same picture), which is "
        "compared with what pictures of patients never seen reach"
    ),
    "copy": "the closest of {n} pictures has a likeness of {value} (1: the same picture)",
}
_PARTS: Mapping[str, str] = {
    "whole": "whole images",
    "tiles": "parts of images, each taken for a small whole chest",
    "quadrants": "quarters of images",
}
_FEATURES: Mapping[str, str] = {
    "pixels": "compared pixel by pixel",
    "embedding": "compared as a network sees them",
    "distance": "by how near a set comes to them",
    "distance-lira": "by how much nearer a set comes to them if they took part",
    "distance-released": "by how near this very set comes to them",
    "margin": "by how sure networks trained on a set are of them",
    "margin-lira": "by how much surer networks are of them if they took part",
    "rmia": "by how much surer networks are of them than of others",
}


@dataclass(frozen=True)
class Said:
    """One finding: which pictures, what was found, where it would refuse, and whether it does."""

    about: str
    found: str
    limit: str
    refuses: bool


def said(finding: Finding, classes: Sequence[str]) -> Said:
    """A finding in words, with its own limit."""
    named = "all classes" if finding.label is None else classes[finding.label]
    share = finding.statistic in _SHARES
    patterns = _SHARES if share else _NUMBERS
    pattern = patterns.get(finding.statistic, f"{finding.statistic}: {{value}}, from {{n}}")
    shown = _share if share else _number
    found = pattern.format(value=shown(finding.value), n=f"{finding.n:,}")
    if finding.low is not None and finding.high is not None:
        found += f" (95 % interval {shown(finding.low)} to {shown(finding.high)})"
    refuses = finding.verdict is Verdict.REFUSED
    return Said(f"{named}, {_space(finding.space)}", found, _limit(finding, shown), refuses)


def telling(result: AuditResult, most: int) -> tuple[Finding, ...]:
    """The findings that say most: those that refuse, or else of each statistic the nearest miss."""
    if result.refusing:
        return tuple(sorted(result.refusing, key=_margin)[:most])
    nearest: dict[str, Finding] = {}
    for finding in sorted(result.findings, key=_margin):
        nearest.setdefault(finding.statistic, finding)
    return tuple(nearest.values())[:most]


def _space(space: str) -> str:
    features, _, part = space.partition("/")
    words = (_PARTS.get(part, part), _FEATURES.get(features, features))
    return ", ".join(word for word in words if word)


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _number(value: float) -> str:
    return f"{value:.3f}"


def _limit(finding: Finding, shown: Callable[[float], str]) -> str:
    if finding.threshold is None:
        return "nothing follows from it alone"
    if finding.p is not None:
        return (
            f"chance alone would give this with a probability of {_chance(finding.p)}; "
            f"refused below {_chance(finding.threshold)}"
        )
    if finding.low is not None:
        return f"refused if the lower end of the interval is above {shown(finding.threshold)}"
    return f"refused from {shown(finding.threshold)} on"


def _chance(probability: float) -> str:
    """As one in so many, which people compare more easily than decimals."""
    if probability >= 0.1:
        return f"{probability:.2f}"
    if probability < 1e-9:
        return "less than 1 in 1,000,000,000"
    return f"1 in {float(f'{1 / probability:.2g}'):,.0f}"


def _margin(finding: Finding) -> float:
    """Below 1 where a finding refuses, and the smaller the more it says; without a limit, last."""
    if not finding.threshold:
        return float("inf")
    if finding.p is not None:
        return finding.p / finding.threshold
    reached = finding.value if finding.low is None else finding.low
    return finding.threshold / reached if reached > 0 else float("inf")
