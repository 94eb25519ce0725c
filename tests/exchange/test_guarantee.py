from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_kit import guarantee_of, private_study

from fedcondense.config.privacy import Declared, Unit
from fedcondense.exchange.guarantee import (
    MECHANISMS,
    Account,
    Attacker,
    fits_declared,
    formal_sentence,
    largest_rate,
    privacy_block,
)
from fedcondense.exchange.record_words import ASSUMPTIONS, closing_sentence, residual_risk


def test_the_sentence_rounds_what_an_attacker_may_find_up():
    attacker = Attacker("0.57501", "0.02001", "0.002")

    said = formal_sentence(guarantee_of(attacker=attacker, rows=guarantee_of().rows * 2))

    # 0.2 stays, 2.001 % and .57501 go up
    assert "at most 0.2 % of members at a false positive rate of 0.1 % and 2.1 % at 1 %" in said
    assert "with an AUC of at most 0.576." in said
    assert "2 ledger rows" in said


@pytest.mark.parametrize("unit", list(Unit))
def test_the_unit_stands_wherever_an_epsilon_stands(unit):
    guarantee = guarantee_of(unit=unit)

    block = privacy_block(Account(guarantee, ledger_head="0" * 64), private_study().privacy)

    assert re.search(
        rf"^\(7\.99613, 0\.00001\)-DP, unit {unit.value}, ", formal_sentence(guarantee)
    )
    assert block["unit"] == unit.value


def test_epsilon_and_delta_allow_a_rate_of_e_to_the_epsilon_times_that_of_chance_and_delta():
    assert largest_rate(0.01, "1", "0.001") == pytest.approx(math.e * 0.01 + 0.001)
    assert largest_rate(0.01, "8", "0.001") == 1.0


@given(epsilon=st.integers(0, 99), delta=st.integers(1, 9))
def test_no_guarantee_keeps_an_attacker_below_chance(epsilon, delta):
    for chance in (0.001, 0.01, 0.5):
        assert chance <= largest_rate(chance, str(epsilon), f"0.000{delta}") <= 1


@pytest.mark.parametrize(
    ("unit", "declared", "fits"),
    [
        (Unit.IMAGE, Declared(images=99_999), True),
        (Unit.IMAGE, Declared(images=100_000), False),
        (Unit.PATIENT, Declared(images=100_000, patients=99_999), True),
        (Unit.PATIENT, Declared(images=99_999), False),
        (Unit.IMAGE, None, False),
    ],
)
def test_a_delta_below_one_in_the_declared_units_fits(unit, declared, fits):
    assert fits_declared(guarantee_of(unit=unit), declared) is fits


def test_every_mode_has_mechanisms_and_assumptions():
    assert MECHANISMS.keys() == ASSUMPTIONS.keys() == {"dp-embed", "dp-sgd"}
    assert all(len(set(said)) == len(said) >= 10 for said in ASSUMPTIONS.values())


def test_what_remains_is_said_by_guarantee_unit_and_verdict():
    said = {residual_risk(unit, passed=True) for unit in (None, *Unit)}

    assert len(said | {residual_risk(None, passed=False)}) == 4
    assert residual_risk(Unit.IMAGE, passed=False) == residual_risk(None, passed=False)
    assert closing_sentence(passed=True) != closing_sentence(passed=False)
