from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from wire_kit import (
    DECLARED,
    HEAD,
    decided,
    paid_for,
    payload_of,
    private_study,
    row_of,
    small_study,
)

from fedcondense.config.privacy import Budget, Declared, Unit
from fedcondense.exchange.guarantee import Account, ChargedRow
from fedcondense.exchange.release_record import check_record
from fedcondense.exchange.terms import terms_of
from fedcondense.privacy import account as accounts
from fedcondense.privacy.account import account_of
from fedcondense.privacy.accounting import Mechanism, Planned, Spent, sigma_for
from fedcondense.privacy.attacker import EVERYTHING
from fedcondense.privacy.chain import State
from fedcondense.privacy.ledger import Access, PrivacyLedger

NONE, PRIVATE = small_study(), private_study()


def account(study=PRIVATE, paid="as planned", **how: Any) -> Account | None:
    if paid == "as planned":
        paid = paid_for(study)
    evidence = {"round": 1, "accesses": 1, "declared": DECLARED, **how}
    return account_of(paid, study, **evidence)


def test_one_charged_row_to_an_access_makes_a_guarantee():
    found = account()

    assert found is not None
    assert found.ledger_head == HEAD
    assert found.guarantee.rows == (ChargedRow("class-embeddings", q="1", sigma="0.601", steps=1),)
    assert (found.guarantee.epsilon, found.guarantee.delta) == ("7.99613", "0.00001")
    assert (found.cumulative.epsilon, found.cumulative.unit) == ("9.25", Unit.PATIENT)


def test_without_differential_privacy_one_unbounded_row_is_what_there_is():
    assert account(NONE) == Account(guarantee=None, cumulative=None, ledger_head=HEAD)
    assert account(NONE, accesses=12_345) == account(NONE)


def test_any_attacker_is_bounded_by_the_trade_off_of_the_gaussian():
    """Dong, Roth and Su 2022: TPR = Phi(mu + Phi^-1(FPR)), AUC = Phi(mu / sqrt 2), mu = 1 / .601.

    Phi(1.66389 - 3.09023) = .07687, Phi(1.66389 - 2.32635) = .25384, Phi(1.17655) = .88031.
    """
    attacker = account().guarantee.attacker

    assert float(attacker.tpr_at_fpr_tenth_percent) == pytest.approx(0.07687, abs=1e-4)
    assert float(attacker.tpr_at_fpr_one_percent) == pytest.approx(0.25384, abs=1e-5)
    assert float(attacker.auc) == pytest.approx(0.88031, abs=1e-5)


def test_an_attacker_is_never_stated_above_what_epsilon_and_delta_alone_allow():
    """A sum that was composed better than the rows alone tell is not thrown away."""
    small = replace(paid_for(PRIVATE), spent=Spent(0.1, 1e-5, "prv"))

    attacker = account(paid=small).guarantee.attacker

    # e^.1 x .01 + 1e-5
    assert float(attacker.tpr_at_fpr_one_percent) == pytest.approx(0.0110617, abs=1e-6)


def test_numbers_are_rounded_towards_the_weaker_claim(monkeypatch):
    monkeypatch.setattr(accounts, "allowed", lambda _: EVERYTHING)  # spares the accountant
    row = row_of(PRIVATE, sigma=0.60123456789, q=1 / 3, steps=2)
    paid = paid_for(PRIVATE, rows=(row,), spent=Spent(1.23456789, 1 / 300_000, "rdp"))

    guarantee = account(paid=paid).guarantee

    assert guarantee.rows == (
        ChargedRow("class-embeddings", q="0.333334", sigma="0.601234", steps=2),
    )
    assert (guarantee.epsilon, guarantee.delta) == ("1.23457", "0.00000333334")


@pytest.mark.parametrize("epsilon", [math.inf, 1e7])
def test_a_sum_that_nothing_bounds_leaves_the_guarantee_of_this_release_alone(epsilon):
    found = account(paid=paid_for(PRIVATE, cumulative=Spent(epsilon, 1e-5, "none")))

    assert found.cumulative is None
    assert found.guarantee.epsilon == "7.99613"


def with_row(**changes: Any):
    return paid_for(PRIVATE, rows=(row_of(PRIVATE, **changes),))


REHEARSAL = {"state": State.REHEARSAL, "sigma": None, "unit": None}


@pytest.mark.parametrize(
    ("paid", "how"),
    [
        (None, {}),
        (paid_for(PRIVATE, rows=()), {"accesses": 0}),
        (paid_for(PRIVATE), {"accesses": 0}),
        (paid_for(PRIVATE), {"accesses": 2}),
        (paid_for(PRIVATE, rows=(row_of(PRIVATE),) * 2), {}),
        (paid_for(PRIVATE, rows=(row_of(PRIVATE),) * 65), {"accesses": 65}),
        (paid_for(PRIVATE, mode="dp-sgd"), {}),
        (paid_for(PRIVATE, unit=Unit.IMAGE), {}),
        (paid_for(PRIVATE, unit=None), {}),
        (paid_for(PRIVATE, spent=Spent(8.01, 1e-5, "prv")), {}),
        (paid_for(PRIVATE, spent=Spent(8.0, 2e-5, "prv")), {}),
        (paid_for(PRIVATE, spent=Spent(8.0, 1e-5, "none")), {}),
        (paid_for(PRIVATE, spent=Spent(math.inf, 1e-5, "prv")), {}),
        (paid_for(PRIVATE), {"declared": None}),
        (paid_for(PRIVATE), {"declared": Declared(images=5000)}),
        (paid_for(PRIVATE), {"declared": Declared(images=10**6, patients=10**6)}),
        (paid_for(PRIVATE), {"round": 2}),
        (with_row(round=2), {}),
        (with_row(study="0" * 64), {}),
        (with_row(mode="dp-sgd"), {}),
        (with_row(unit=Unit.IMAGE), {}),
        (with_row(mechanism="experts"), {}),
        (with_row(**REHEARSAL), {}),
        (paid_for(NONE), {}),
    ],
)
def test_anything_else_does_not_bear_a_release_out(paid, how):
    assert account(paid=paid, **how) is None


@pytest.mark.parametrize(
    "paid",
    [
        paid_for(PRIVATE),
        paid_for(NONE, rows=()),
        paid_for(NONE, rows=(row_of(NONE),) * 2),
        paid_for(NONE, rows=(row_of(NONE, state=State.REHEARSAL),)),
        paid_for(NONE, rows=(row_of(NONE, study="0" * 64),)),
    ],
)
def test_without_differential_privacy_nothing_but_one_unbounded_row_is_a_payment(paid):
    assert account(NONE, paid) is None


def test_experts_are_paid_for_with_counts_and_training():
    study = private_study(privacy={"mode": "dp-sgd"}, distill={"method": "mtt"})
    counts = row_of(study, mechanism="class-counts", sigma=40.0)
    rows = (counts, row_of(study, mechanism="experts"))

    found = account(study, paid_for(study, rows=rows), accesses=2)

    assert [row.mechanism for row in found.guarantee.rows] == ["class-counts", "experts"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["none", "dp-embed", "dp-sgd"])
def test_what_the_real_ledger_answers_is_released_and_read(mode, tmp_path):
    """The seam: what is planned, charged and stated, by the ledger's own accountant."""
    study = {
        "none": NONE,
        "dp-embed": PRIVATE,
        "dp-sgd": private_study(privacy={"mode": "dp-sgd"}, distill={"method": "mtt"}),
    }[mode]
    planned = {
        "none": [Mechanism("images", None)],
        "dp-embed": sigma_for([Planned("class-embeddings")], epsilon=8.0, delta=1e-5),
        "dp-sgd": sigma_for(
            [Mechanism("class-counts", 40.0), Planned("experts", q=0.2, steps=60)],
            epsilon=8.0,
            delta=1e-5,
        ),
    }[mode]
    budget = None if mode == "none" else Budget(epsilon=8.0, delta=1e-5, unit=Unit.PATIENT)
    ledger = PrivacyLedger.open(tmp_path / "ledger", "patients", budget)
    access = Access(study.digest, 1, mode, Unit.PATIENT)
    payload = payload_of(study)

    paid = ledger.charge(planned, access)
    released = decided(payload, study, paid=paid, accesses=len(planned))

    check_record(released.record, payload, terms_of(study), purpose="release", round=1)
    block = released.record["privacy"]
    assert ledger.holds(block["ledger_head"])
    assert block["mode"] == mode
    if mode != "none":
        assert 7.9 < float(block["epsilon"]) <= 8
        assert block["cumulative_epsilon"] == block["epsilon"]
        # 7.7 % of one Gaussian; e^8 x .001, that is everything, by epsilon and delta alone
        assert 0.01 < float(block["attacker"]["tpr_at_fpr_tenth_percent"]) < 0.1
