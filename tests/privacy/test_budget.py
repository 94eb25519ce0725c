from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcondense.config.privacy import Budget, Declared, DpEmbed, DpSgd, NoPrivacy, Unit
from fedcondense.errors import BudgetExhausted, SettingsError
from fedcondense.privacy.accounting import Mechanism, Spent
from fedcondense.privacy.budget import check_request, counted, weaker_unit
from fedcondense.privacy.chain import Entry, State
from fedcondense.privacy.ledger import Access, PrivacyLedger

FOR_IMAGES = Budget(epsilon=8.0, delta=1e-5, unit=Unit.IMAGE)
FOR_PATIENTS = Budget(epsilon=8.0, delta=1e-5, unit=Unit.PATIENT)
ACCESS = Access("5" * 64, round=1, mode="dp-embed", unit=Unit.IMAGE)


def adding(mechanisms: Sequence[Mechanism], delta: float) -> Spent:
    if any(of.sigma is None for of in mechanisms):
        return Spent(math.inf, delta, "none")
    return Spent(math.fsum(of.steps / of.sigma for of in mechanisms if of.sigma), delta, "prv")


def charged(mechanism: str, unit: Unit, q: float = 1.0, steps: int = 1) -> Entry:
    return Entry(state=State.CHARGED, mechanism=mechanism, sigma=4.0, q=q, steps=steps, unit=unit)


EXPERTS = charged("experts", Unit.PATIENT, 0.1, 30)
EMBEDDINGS = charged("class-embeddings", Unit.PATIENT)
UNBOUNDED = Entry(state=State.UNBOUNDED, mechanism="images")


# Units


@pytest.mark.parametrize("unit", Unit)
@pytest.mark.parametrize("name", ["experts", "class-embeddings"])
def test_a_row_counts_for_its_own_unit_as_it_was_charged(unit, name):
    row = charged(name, unit, 0.1, 30)

    assert counted([row], unit) == [Mechanism(name, 4.0, 0.1, 30)]


def test_a_row_for_images_bounds_nothing_for_a_patient():
    assert counted([charged("experts", Unit.IMAGE)], Unit.PATIENT) == [Mechanism("experts", None)]


def test_a_mean_over_a_patient_hides_an_image_as_well_as_the_patient():
    assert counted([EMBEDDINGS], Unit.IMAGE) == [Mechanism("class-embeddings", 4.0)]


def test_any_other_row_for_patients_hides_an_image_half_as_well_and_without_sampling():
    assert counted([EXPERTS], Unit.IMAGE) == [Mechanism("experts", 2.0, 1.0, 30)]


@given(images=st.integers(2, 9), seed=st.integers(0, 2**31))
def test_a_mean_of_vectors_in_a_ball_moves_less_than_its_radius_when_one_goes(images, seed):
    # why `counted` keeps the sigma of a mean
    vectors = np.random.default_rng(seed).standard_normal((images, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    moved = np.linalg.norm(vectors.mean(0) - vectors[1:].mean(0))

    assert moved <= 1 + 1e-12


def test_clipping_after_the_mean_may_move_twice_the_radius():
    # why `counted` halves the sigma of DP-SGD: two gradients, one of them far larger
    large, small = np.array([100.0]), np.array([-2.0])

    def clipped(vector: np.ndarray) -> float:
        return float(vector[0] / max(1.0, abs(vector[0])))

    assert clipped((large + small) / 2) - clipped(small) == 2.0


@pytest.mark.parametrize("unit", Unit)
def test_what_is_not_bounded_is_so_for_everybody(unit):
    assert counted([UNBOUNDED], unit) == [Mechanism("images", None)]


def test_rehearsals_and_notes_of_completion_cost_nothing():
    rows = [
        Entry(state=State.REHEARSAL, mechanism="audits"),
        Entry(state=State.DONE, mechanism="experts", settles=(1,)),
    ]

    assert counted(rows, Unit.PATIENT) == []


def test_the_weaker_unit_is_that_of_images_as_soon_as_one_row_is_for_images():
    assert weaker_unit([]) is Unit.PATIENT
    assert weaker_unit([EMBEDDINGS, UNBOUNDED]) is Unit.PATIENT
    assert weaker_unit([EMBEDDINGS, charged("experts", Unit.IMAGE)]) is Unit.IMAGE


# Requests

ASKED = DpEmbed(mode="dp-embed", epsilon=8.0, delta=1e-5, unit=Unit.IMAGE)
ASKED_FOR_PATIENTS = DpSgd(mode="dp-sgd", epsilon=8.0, delta=1e-5, unit=Unit.PATIENT)


@pytest.mark.parametrize(
    ("request_", "declared", "budget"),
    [
        (NoPrivacy(mode="none"), None, None),
        (ASKED, Declared(images=5_000), FOR_IMAGES),
        (ASKED_FOR_PATIENTS, Declared(images=5_000, patients=900), FOR_PATIENTS),
        (ASKED_FOR_PATIENTS, Declared(images=5_000, patients=900), FOR_IMAGES),
        (ASKED, Declared(images=99_999), FOR_IMAGES),
    ],
)
def test_a_request_that_the_budget_can_pay_passes(request_, declared, budget):
    check_request(request_, declared, budget)


@pytest.mark.parametrize(
    ("request_", "declared", "budget", "why"),
    [
        (ASKED, Declared(images=5_000), None, r"\[ledger\] is missing"),
        (ASKED, None, FOR_IMAGES, r"\[declared\] images is missing"),
        (ASKED_FOR_PATIENTS, Declared(images=10), FOR_PATIENTS, r"\[declared\] patients is miss"),
        (ASKED, Declared(images=100_000), FOR_IMAGES, "delta 1e-05 is not below one in 100000"),
        (
            ASKED,
            Declared(images=5_000),
            FOR_IMAGES.model_copy(update={"delta": 1e-3}),
            "delta 0.001 is not below one in 5000 images",
        ),
    ],
)
def test_a_request_that_cannot_be_planned_is_a_setting_to_mend(request_, declared, budget, why):
    with pytest.raises(SettingsError, match=why) as error:
        check_request(request_, declared, budget)

    assert error.value.hint


@pytest.mark.parametrize(
    ("request_", "budget", "why"),
    [
        (NoPrivacy(mode="none"), FOR_IMAGES, "without differential privacy is not bounded"),
        (ASKED, FOR_PATIENTS, "hides single images, the budget in .* is for patients"),
    ],
)
def test_a_request_that_no_budget_of_this_kind_pays_is_refused(request_, budget, why):
    with pytest.raises(BudgetExhausted, match=why):
        check_request(request_, Declared(images=5_000, patients=900), budget)


# The view


@pytest.fixture
def ledger(tmp_path) -> PrivacyLedger:
    return PrivacyLedger.open(tmp_path, "kermany", FOR_IMAGES, compose=adding)


def test_the_view_of_an_empty_ledger_has_the_whole_budget_left(ledger):
    view = ledger.view()

    assert (view.population, view.budget, view.unit) == ("kermany", FOR_IMAGES, Unit.IMAGE)
    assert (view.spent.epsilon, view.left, view.spendings, view.planned) == (0.0, 8.0, (), None)


def test_the_view_says_on_what_it_was_spent_and_what_was_never_finished(ledger):
    finished = ledger.charge([Mechanism("class-embeddings", 1.0)], ACCESS)
    ledger.finish(finished)
    with ledger.rehearsal("audits"):
        pass
    ledger.charge([Mechanism("class-embeddings", 0.5)], replace(ACCESS, round=2))

    view = ledger.view()

    assert [(of.row.seq, of.row.round, of.finished) for of in view.spendings] == [
        (1, 1, True),
        (4, 2, False),
    ]
    assert (view.rehearsals, view.spent.epsilon, view.left) == (1, 3.0, 5.0)


def test_the_view_says_what_a_plan_would_cost_without_charging_it(ledger):
    ledger.charge([Mechanism("class-embeddings", 0.5)], ACCESS)

    planned = ledger.view([Mechanism("class-embeddings", 1.0)] * 3, ACCESS).planned

    assert planned is not None
    assert (planned.alone.epsilon, planned.after.epsilon, planned.refusal) == (3.0, 5.0, None)
    assert len(ledger.rows()) == 1


def test_the_view_says_why_a_plan_would_be_refused(ledger):
    planned = ledger.view([Mechanism("class-embeddings", 0.1)], ACCESS).planned

    assert planned is not None
    assert isinstance(planned.refusal, BudgetExhausted)
    with pytest.raises(BudgetExhausted) as error:
        ledger.charge([Mechanism("class-embeddings", 0.1)], ACCESS)
    assert error.value.message == planned.refusal.message


def test_the_view_without_a_budget_still_says_what_was_spent(ledger, tmp_path):
    ledger.charge([Mechanism("class-embeddings", 0.5)], ACCESS)

    view = PrivacyLedger.open(tmp_path, "kermany", None, compose=adding).view()

    assert (view.budget, view.left, view.unit, view.spent.epsilon) == (None, None, Unit.IMAGE, 2.0)
