"""The gate: what may leave a site is decided here, on the very bytes that would leave.

Three questions, in this order: where does the set come from, is every look at a patient paid for,
and what did the audits of these bytes find. Nothing else in this package makes a `Released`, and
nothing but a `Released` is ever sealed.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Any

import fedcondense
from fedcondense.config.privacy import Declared
from fedcondense.config.scenario import ReleaseMode
from fedcondense.config.site import ReleasePolicy
from fedcondense.config.study import Study
from fedcondense.errors import ReleaseRefused
from fedcondense.exchange.contribution import Payload, Purpose, Released
from fedcondense.exchange.guarantee import Account
from fedcondense.exchange.release_record import STUDIED, Facts, Refusal, build_record
from fedcondense.exchange.terms import terms_of
from fedcondense.privacy.account import account_of
from fedcondense.privacy.findings import Audits, Verdict
from fedcondense.privacy.provenance import provenance_problems
from fedcondense.privacy.receipt import Paid

AUDITS = ("memorisation", "membership")  # the first is always asked for
Verdicts = dict[str, Verdict]
_PURPOSES: dict[ReleaseMode, Purpose] = {
    ReleaseMode.ENFORCED: "release",
    ReleaseMode.STUDY_ONLY: "simulation",
}
_HINTS: dict[Refusal, str] = {
    Refusal.REAL_START: "condense from noise; a real start is never released",
    Refusal.CORESET: "condense from noise; real images are never released",
    Refusal.DUPLICATE: "condense again; repeated images are never released",
    Refusal.LEDGER: "condense again; each access to patients needs its paid row",
    Refusal.AUDIT_MISSING: "run the audits of the set that would leave",
    Refusal.AUDIT_MEMORISATION: "look at the record's page; smaller classes leak more",
    Refusal.AUDIT_MEMBERSHIP: "look at the record's page; smaller classes leak more",
}


def today() -> str:
    """The day, in UTC, as a record states it."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


@dataclass(frozen=True)
class Evidence:
    """All that the gate is shown beside a payload.

    Attributes:
        policy: what the site asks beyond the gate's own conditions.
        audits: what was found on exactly this payload.
        paid: the rows that were charged before patients were looked at.
        accesses: to patients, as the ledger counts them (see the site's `Grant`).
        declared: the numbers that the site makes public.
        round: the round that the payload would answer.
        attempts: sets of this round that the gate has looked at, with this one.
        date: the day of the decision.
    """

    policy: ReleasePolicy
    audits: Audits | None
    paid: Paid | None
    accesses: int
    declared: Declared | None
    round: int
    attempts: int
    date: str = field(default_factory=today)


def judge(payload: Payload, study: Study, evidence: Evidence) -> Facts:
    """What a record of this payload says, refusals first of all; nothing is decided by it.

    The site keeps it also of a set that is refused: its data officer is shown why.
    """
    account = account_of(
        evidence.paid,
        study,
        round=evidence.round,
        accesses=evidence.accesses,
        declared=evidence.declared,
    )
    verdicts = {name: _verdict(evidence.audits, payload, name) for name in AUDITS}
    refusals = (
        *provenance_problems(payload, study),
        *((Refusal.LEDGER,) if account is None else ()),
        *_problems_of_audits(verdicts, evidence.policy),
    )
    head = evidence.paid.head if evidence.paid else None
    return Facts(
        round=evidence.round,
        date=evidence.date,
        software=f"fedcondense {fedcondense.__version__}",
        attempts=evidence.attempts,
        accesses=evidence.accesses,
        declared=evidence.declared,
        memorisation=verdicts["memorisation"].value,
        membership=verdicts["membership"].value,
        refusals=refusals,
        account=account or Account(guarantee=None, ledger_head=head),
    )


def decide_release(
    payload: Payload, *, study: Study, mode: ReleaseMode, evidence: Evidence
) -> Released:
    """Decide on a payload: the one place where a `Released` is made.

    Under `study-only`, which only a scenario can say, what a study may look at goes on with its
    refusal in the record and with a purpose that no deployed server accepts. What is a defect and
    not a choice is refused in both modes.

    Raises:
        ReleaseRefused: names every reason.
    """
    facts = judge(payload, study, evidence)
    tolerated = STUDIED if mode is ReleaseMode.STUDY_ONLY else frozenset()
    if not tolerated.issuperset(facts.refusals):
        reasons = ", ".join(facts.refusals)
        raise ReleaseRefused(f"nothing is released: {reasons}", hint=_hint(facts.refusals))
    return Released(payload, record_of(payload, study, facts, mode=mode), _PURPOSES[mode])


def record_of(payload: Payload, study: Study, facts: Facts, *, mode: ReleaseMode) -> dict[str, Any]:
    """The record of a payload, refused or not; that of a refused one no reader accepts."""
    return build_record(payload, terms_of(study), purpose=_PURPOSES[mode], facts=facts)


def _verdict(audits: Audits | None, payload: Payload, name: str) -> Verdict:
    """What was found on another payload says nothing of this one."""
    if audits is None or audits.payload_sha256 != payload.sha256:
        return Verdict.NOT_RUN
    return audits.verdict(name)


def _problems_of_audits(verdicts: Verdicts, policy: ReleasePolicy) -> tuple[Refusal, ...]:
    """Each audit that the policy asks for has to pass; one that refuses does so unasked too."""
    asked = AUDITS if policy.audits == "full" else AUDITS[:1]
    found = {
        Refusal.AUDIT_MISSING: any(verdicts[name] is Verdict.NOT_RUN for name in asked),
        Refusal.AUDIT_MEMORISATION: verdicts["memorisation"] is Verdict.REFUSED,
        Refusal.AUDIT_MEMBERSHIP: verdicts["membership"] is Verdict.REFUSED,
    }
    return tuple(refusal for refusal, holds in found.items() if holds)


def _hint(refusals: tuple[Refusal, ...]) -> str:
    for refusal, hint in _HINTS.items():
        if refusal in refusals:
            return hint
    return "condense again with the installed version and the study file as agreed"
