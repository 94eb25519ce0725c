"""What an audit says: verdicts, findings, results; kept at the site as `audits.json`.

Everything here stays where it is. A server is told verdicts at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from fedcondense.config.site import ReleasePolicy


class Verdict(StrEnum):
    """What an audit came to. None of the three says that nothing leaks."""

    PASSED = "passed"
    REFUSED = "refused"
    NOT_RUN = "not-run"


@dataclass(frozen=True)
class Finding:
    """One statistic of one part of the set.

    Attributes:
        statistic: which one, by the name under which its module explains it.
        label: the class it is about, by the study's numbering; None for all of them.
        space: what was looked at: pixels or embedding, of whole images, tiles or quadrants; or
            the score of a membership attack.
        value: the figure itself.
        low: lower end of its 95 % interval, where there is one.
        high: upper end.
        threshold: where there is a `p`, it refuses below this; else `low` refuses above it, or
            `value` from it on, where there is no interval.
        p: probability of such a figure, if nothing were memorised.
        n: images, tiles or patients' images that it rests on.
        verdict: what follows from it alone.
    """

    statistic: str
    label: int | None
    space: str
    value: float
    low: float | None
    high: float | None
    threshold: float | None
    p: float | None
    n: int
    verdict: Verdict


@dataclass(frozen=True)
class AuditResult:
    """One audit: `memorisation` or `membership`. A single refusing finding refuses."""

    audit: str
    verdict: Verdict
    findings: tuple[Finding, ...]
    seconds: float
    note: str

    @classmethod
    def of(
        cls, audit: str, findings: Sequence[Finding], *, seconds: float, note: str
    ) -> AuditResult:
        """The result that these findings give."""
        refuses = any(finding.verdict is Verdict.REFUSED for finding in findings)
        verdict = Verdict.REFUSED if refuses else Verdict.PASSED
        return cls(audit, verdict, tuple(findings), seconds, note)

    @classmethod
    def not_run(cls, audit: str, why: str) -> AuditResult:
        """The result of an audit that could not be run, and why."""
        return cls(audit, Verdict.NOT_RUN, (), 0.0, why)

    @property
    def refusing(self) -> tuple[Finding, ...]:
        """The findings that refuse, in their order."""
        return tuple(f for f in self.findings if f.verdict is Verdict.REFUSED)


@dataclass(frozen=True)
class Audits:
    """All that was tried against one payload: `results` of the audits of a preset."""

    payload_sha256: str
    preset: str
    results: tuple[AuditResult, ...]

    def verdict(self, name: str) -> Verdict:
        """What the audit of that name came to; one that the preset lacks was not run."""
        found = (result.verdict for result in self.results if result.audit == name)
        return next(found, Verdict.NOT_RUN)

    def covers(self, policy: ReleasePolicy) -> bool:
        """Whether all was tried that the policy asks for, whatever came of it."""
        return policy.audits in ("quick", self.preset)

    def to_json(self) -> dict[str, Any]:
        """For `audits.json`: local, with every figure."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Audits:
        """What `to_json` wrote."""
        results = tuple(_result(result) for result in value["results"])
        return cls(value["payload_sha256"], value["preset"], results)


def _result(value: dict[str, Any]) -> AuditResult:
    findings = tuple(
        Finding(**(finding | {"verdict": Verdict(finding["verdict"])}))
        for finding in value["findings"]
    )
    return AuditResult(**(value | {"verdict": Verdict(value["verdict"]), "findings": findings}))
