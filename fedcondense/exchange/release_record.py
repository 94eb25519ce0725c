"""The copy of the release record that leaves with a payload: verdicts and words, no statistic.

What follows from the payload, the study and the purpose is not believed: a reader writes the
record again from the rest, which it checks by form, range and closed vocabulary, and compares.
Layout: docs/ref-contribution-format.md.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fedcondense.config.privacy import Declared
from fedcondense.exchange.contribution import Payload, Provenance, Purpose
from fedcondense.exchange.guarantee import (
    MOST_OF_ANYTHING,
    SOFTWARE,
    Account,
    fits_declared,
    formal_sentence,
    privacy_block,
    read_account,
)
from fedcondense.exchange.record_words import (
    NO_GUARANTEE,
    WITHDRAWAL,
    audit_sentence,
    closing_sentence,
    contents_sentence,
    public_inputs,
    recipients,
    residual_risk,
    retention,
    shown_method,
)
from fedcondense.exchange.rejection import Reason, demand, reject
from fedcondense.exchange.strict_json import has_shape
from fedcondense.exchange.terms import CORESETS, Terms
from fedcondense.files.storage import canonical_json

RECORD_VERSION = 2
MOST_ATTEMPTS = 10  # sets of one study and round that a gate ever looks at
PASSED, REFUSED, NOT_RUN = "passed", "refused", "not-run"
_DAY = re.compile(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}")
_OPEN: Mapping[str, type | tuple[type, ...]] = {  # what does not follow from anything else
    "attempts": int,
    "audits": dict,
    "data_accesses": int,
    "date": str,
    "declared": (dict, type(None)),
    "privacy": dict,
    "refusals": list,
    "software": str,
}
_DECLARED: Mapping[str, type | tuple[type, ...]] = {
    "images": int,
    "patients": (int, type(None)),
}


class Refusal(StrEnum):
    """Why the gate refuses a payload."""

    MISSING = "provenance-missing"
    CONTRADICTORY = "provenance-contradictory"
    REAL_START = "real-start"
    CORESET = "coreset"
    NOT_FINITE = "not-finite"
    CONSTANT = "constant"
    DUPLICATE = "duplicate-images"
    LEDGER = "ledger"
    AUDIT_MISSING = "audit-missing"
    AUDIT_MEMORISATION = "audit-memorisation"
    AUDIT_MEMBERSHIP = "audit-membership"


_BEYOND_PROVENANCE = frozenset(
    {
        Refusal.LEDGER,
        Refusal.AUDIT_MISSING,
        Refusal.AUDIT_MEMORISATION,
        Refusal.AUDIT_MEMBERSHIP,
    }
)
# What a study on one machine may look at although it is never released; the others are defects.
STUDIED = _BEYOND_PROVENANCE | {Refusal.REAL_START, Refusal.CORESET, Refusal.DUPLICATE}


@dataclass(frozen=True)
class Facts:
    """What a record says that follows from nothing else; all of it is public.

    `date` is a day, `software` name and version of what decided, `attempts` the number of sets of
    this round that the gate has looked at, `accesses` how often the ledger paid for anything
    derived from patients. `memorisation` and `membership` are verdicts.
    """

    round: int
    date: str
    software: str
    attempts: int
    accesses: int
    declared: Declared | None
    memorisation: str
    membership: str
    refusals: tuple[Refusal, ...]
    account: Account


def build_record(
    payload: Payload, terms: Terms, *, purpose: Purpose, facts: Facts
) -> dict[str, Any]:
    """The record of a decision, of integers, strings, lists and objects of these only.

    Soft labels and a learned step size are named in it where they leave too.
    """
    origin, passed = payload.provenance, not facts.refusals
    guarantee = facts.account.guarantee
    learned = {
        "soft_labels": "float16" if payload.soft else None,
        "student_lr": payload.student_rate,
    }
    return {
        "attempts": facts.attempts,
        "audits": _audits(facts),
        "classes_left_out": list(absent_classes(payload.labels, terms.classes)),
        "data_accesses": facts.accesses,
        "date": facts.date,
        "declared": None if facts.declared is None else facts.declared.model_dump(mode="json"),
        "images": payload.shape[0],
        "images_per_class": terms.images_per_class,
        "method": shown_method(origin.method, terms.privacy.mode),
        "partition": origin.partition,
        "payload_sha256": payload.sha256,
        "privacy": privacy_block(facts.account, terms.privacy),
        "public_inputs": public_inputs(terms.privacy.mode, origin.start),
        "purpose": purpose,
        "recipients": recipients(purpose),
        "refusals": [refusal.value for refusal in facts.refusals],
        "residual_risk": residual_risk(guarantee.unit if guarantee else None, passed=passed),
        "resolution": list(payload.shape[1:]),
        "retention": retention(purpose),
        "round": facts.round,
        "software": facts.software,
        "start": origin.start,
        "statement": statement(payload, facts),
        "study_digest": terms.study_digest,
        "verdict": PASSED if passed else REFUSED,
        "version": RECORD_VERSION,
        "withdrawal": WITHDRAWAL,
        **{key: value for key, value in learned.items() if value is not None},
    }


def check_record(
    record: dict[str, Any], payload: Payload, terms: Terms, *, purpose: Purpose, round: int
) -> None:
    """Refuse a record that is not the one of this payload, purpose and round.

    Raises:
        ContributionRejected: `record`.
    """
    given: dict[str, Any] = {key: record.get(key) for key in _OPEN}
    demand(has_shape(given, _OPEN), Reason.RECORD)
    refusals = tuple(of for of in Refusal if of in STUDIED and of.value in given["refusals"])
    demand(not refusals or purpose == "simulation", Reason.RECORD)
    demand(set(studied_refusals(payload.provenance)) <= set(refusals), Reason.RECORD)
    facts = _read_facts(given, terms, refusals, round)
    expected = build_record(payload, terms, purpose=purpose, facts=facts)
    demand(canonical_json(record) == canonical_json(expected), Reason.RECORD)


def absent_classes(labels: bytes, classes: Sequence[str]) -> tuple[str, ...]:
    """Those of `classes` that no label names, in their order."""
    present = set(labels)
    return tuple(name for label, name in enumerate(classes) if label not in present)


def studied_refusals(provenance: Provenance) -> tuple[Refusal, ...]:
    """What provenance alone makes unreleasable, however the set turned out."""
    found = {
        Refusal.REAL_START: provenance.start == "real",
        Refusal.CORESET: provenance.method in CORESETS,
    }
    return tuple(refusal for refusal, holds in found.items() if holds)


def statement(payload: Payload, facts: Facts) -> str:
    """The words that go with a set; no others are allowed."""
    passed, guarantee = not facts.refusals, facts.account.guarantee
    start = payload.provenance.start
    sentences = (
        contents_sentence(payload.shape[0], facts.declared, start, passed=passed),
        NO_GUARANTEE if guarantee is None else formal_sentence(guarantee),
        audit_sentence(_audits(facts)),
        closing_sentence(passed=passed),
    )
    return " ".join(sentences)


def _audits(facts: Facts) -> dict[str, str]:
    of_provenance = set(facts.refusals) - _BEYOND_PROVENANCE
    return {
        "provenance": REFUSED if of_provenance else PASSED,
        "memorisation": facts.memorisation,
        "membership": facts.membership,
    }


def _read_facts(
    given: dict[str, Any], terms: Terms, refusals: tuple[Refusal, ...], round: int
) -> Facts:
    demand(1 <= given["attempts"] <= MOST_ATTEMPTS, Reason.RECORD)
    demand(0 <= given["data_accesses"] <= MOST_OF_ANYTHING, Reason.RECORD)
    demand(_is_day(given["date"]), Reason.RECORD)
    demand(SOFTWARE.fullmatch(given["software"]), Reason.RECORD)
    refused = Refusal.LEDGER in refusals
    facts = Facts(
        round=round,
        date=given["date"],
        software=given["software"],
        attempts=given["attempts"],
        accesses=given["data_accesses"],
        declared=_read_declared(given["declared"]),
        memorisation=_read_verdict(given["audits"].get("memorisation")),
        membership=_read_verdict(given["audits"].get("membership")),
        refusals=refusals,
        account=read_account(given["privacy"], terms.privacy, refused=refused),
    )
    _check_audits(facts)
    _check_guarantee(facts)
    return facts


def _check_audits(facts: Facts) -> None:
    """A refusal stands if and only if its audit refused; membership alone may be left out."""
    found, verdicts = set(facts.refusals), (facts.memorisation, facts.membership)
    refused = (Refusal.AUDIT_MEMORISATION in found, Refusal.AUDIT_MEMBERSHIP in found)
    demand(tuple(verdict == REFUSED for verdict in verdicts) == refused, Reason.RECORD)
    missing = Refusal.AUDIT_MISSING in found
    demand(missing or facts.memorisation != NOT_RUN, Reason.RECORD)
    demand(not missing or NOT_RUN in verdicts, Reason.RECORD)


def _check_guarantee(facts: Facts) -> None:
    """One charged row to an access, and a plan made from declared numbers."""
    guarantee = facts.account.guarantee
    if guarantee is None:
        return
    demand(len(guarantee.rows) == facts.accesses, Reason.RECORD)
    demand(fits_declared(guarantee, facts.declared), Reason.RECORD)


def _read_declared(value: dict[str, Any] | None) -> Declared | None:
    if value is None:
        return None
    demand(has_shape(value, _DECLARED), Reason.RECORD)
    images, patients = value["images"], value["patients"]
    demand(1 <= images <= MOST_OF_ANYTHING, Reason.RECORD)
    demand(patients is None or 1 <= patients <= MOST_OF_ANYTHING, Reason.RECORD)
    return Declared(images=images, patients=patients)


def _read_verdict(word: object) -> str:
    if word not in (PASSED, REFUSED, NOT_RUN):
        reject(Reason.RECORD)
    return str(word)


def _is_day(text: str) -> bool:
    if not _DAY.fullmatch(text):
        return False
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return True
