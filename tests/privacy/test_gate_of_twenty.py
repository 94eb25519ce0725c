"""Audits and gate together, on twenty sets that the real distillers made."""

from __future__ import annotations

import pytest
from phantom_sets_kit import Made, many_phantoms, twenty

from fedcondense.config.scenario import ReleaseMode
from fedcondense.config.site import ReleasePolicy
from fedcondense.data.dataset import LabeledImages
from fedcondense.errors import ReleaseRefused
from fedcondense.exchange.contribution import Released
from fedcondense.privacy.accounting import Mechanism
from fedcondense.privacy.audit import run_audits
from fedcondense.privacy.ledger import Access, PrivacyLedger
from fedcondense.privacy.release import Evidence, decide_release

pytestmark = pytest.mark.slow

POLICY = ReleasePolicy(held_out=1 / 3, min_patients_per_class=30)
LONG = 300  # iterations, of the order of what studies ask for


@pytest.fixture(scope="module")
def phantoms() -> LabeledImages:
    return many_phantoms()


def decided(made: Made, ledger: PrivacyLedger) -> str:
    """What the gate says: the reasons of its refusal, or nothing."""
    access = Access(study=made.study.digest, round=1, mode="none")
    evidence = Evidence(
        policy=POLICY,
        audits=run_audits(
            made.arrays,
            payload_sha256=made.payload.sha256,
            study=made.study,
            train=made.train,
            held_out=made.held_out,
            policy=POLICY,
            redistill=None,
            seed=made.seed,
        ),
        paid=ledger.charge((Mechanism("images", None),), access),
        accesses=1,
        declared=None,
        round=1,
        attempts=1,
    )
    try:
        released = decide_release(
            made.payload, study=made.study, mode=ReleaseMode.ENFORCED, evidence=evidence
        )
    except ReleaseRefused as error:
        return error.message
    assert isinstance(released, Released)
    return ""


@pytest.fixture
def ledger(tmp_path) -> PrivacyLedger:
    return PrivacyLedger.open(tmp_path, "patients", None)


def test_the_gate_refuses_twenty_of_twenty_sets_from_real_images(phantoms, ledger):
    said = [decided(made, ledger) for made in twenty(phantoms, "real")]

    assert len(said) == 20
    assert all("real-start" in reasons for reasons in said)
    assert sum("audit-memorisation" in reasons for reasons in said) >= 19


def test_the_gate_refuses_one_at_most_of_twenty_sets_from_noise_that_were_made_for_long(
    phantoms, ledger
):
    said = [decided(made, ledger) for made in twenty(phantoms, "noise", iterations=LONG)]

    assert sum(bool(reasons) for reasons in said) <= 1
