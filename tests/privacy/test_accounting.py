from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from project_kit import extra_of

from fedcondense.errors import SettingsError
from fedcondense.privacy import accounting
from fedcondense.privacy.accounting import (
    Mechanism,
    Planned,
    Spent,
    compose,
    least_scale,
    sigma_for,
)

DELTA = 1e-5
COUNTS = Mechanism("class-counts", 40.0)
EXPERT_Q, EXPERT_STEPS = 256 / 5000, 586
# shared design, privacy.md sec. 7: target, sigma of the embeddings, of one expert, PRV, RDP
GOLDEN = [
    (1, 5.375, 6.804, 0.9900, 1.071),
    (3, 1.979, 2.595, 2.9893, 3.234),
    (8, 0.851, 1.280, 7.9896, 8.625),
    (10, 0.708, 1.123, 9.9955, 10.79),
]
slow = pytest.mark.slow  # imports opacus


def the_plan(embeddings: float, expert: float) -> list[Mechanism]:
    return [
        COUNTS,
        Mechanism("class-embeddings", embeddings),
        Mechanism("experts", expert, EXPERT_Q, EXPERT_STEPS),
    ]


def renyi(mechanisms: Sequence[Mechanism], delta: float) -> float:
    history = [(of.sigma, of.q, of.steps) for of in mechanisms if of.sigma is not None]
    return accounting._rdp(history, delta)


@pytest.fixture
def without_prv(monkeypatch) -> None:
    def raises(*_: object, **__: object) -> None:
        raise RuntimeError("Discrete mean differs significantly from continuous mean.")

    accountants = pytest.importorskip("opacus.accountants")
    monkeypatch.setattr(accountants.PRVAccountant, "_get_dprv", raises)


# What needs no accountant


def test_nothing_costs_nothing():
    assert compose([], DELTA) == Spent(0.0, DELTA, "none")


def test_one_mechanism_without_noise_leaves_all_of_them_unbounded():
    spent = compose([COUNTS, Mechanism("images", None)], DELTA)

    assert spent == Spent(math.inf, DELTA, "none")
    assert not spent.bounded


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.inf, math.nan])
def test_a_sigma_that_is_no_positive_number_is_refused(sigma):
    with pytest.raises(ValueError, match="sigma"):
        Mechanism("images", sigma)


@pytest.mark.parametrize(("q", "steps"), [(0.0, 1), (1.1, 1), (math.nan, 1), (0.5, 0)])
def test_a_rate_or_number_of_steps_that_means_nothing_is_refused(q, steps):
    with pytest.raises(ValueError, match="q lies outside"):
        Mechanism("images", 1.0, q, steps)


def test_without_opacus_the_operator_learns_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opacus", None)

    with pytest.raises(SettingsError, match="not installed") as error:
        compose([COUNTS], DELTA)

    assert error.value.hint == f"pip install '{extra_of('dp')}'"


@given(
    power=st.floats(0.3, 4),
    start=st.floats(0.02, 5e4),
    answer=st.floats(0.06, 9e4),
)
def test_the_least_scale_fits_and_a_little_less_does_not(power, start, answer):
    def cost(scale: float) -> float:
        return (answer / scale) ** power

    found = least_scale(cost, 1.0, start=start, bounds=(0.05, 1e5))

    assert found is not None
    assert cost(found) <= 1 < cost(found / (1 + 2 * accounting.PRECISION))


@given(answer=st.floats(0.06, 9e4))
def test_the_least_scale_is_found_where_costs_jump_or_are_infinite(answer):
    def cost(scale: float) -> float:
        return 0.0 if scale >= answer else math.inf

    found = least_scale(cost, 1.0, start=1.0, bounds=(0.05, 1e5))

    assert found is not None
    assert answer <= found <= answer * (1 + accounting.PRECISION)


def test_there_is_no_scale_where_the_greatest_still_costs_too_much():
    assert least_scale(lambda _: 2.0, 1.0, start=1.0, bounds=(0.05, 1e5)) is None


def test_where_everything_fits_the_scale_is_the_least_sensible_one():
    assert least_scale(lambda _: 0.5, 1.0, start=1.0, bounds=(0.05, 1e5)) == 0.05


def test_few_evaluations_find_a_scale():
    asked = []

    def cost(scale: float) -> float:
        asked.append(scale)
        return 5 / scale + 0.01

    least_scale(cost, 1.0, start=5.2, bounds=(0.05, 1e5))

    assert len(asked) <= 8


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.600301, 0.6004), (0.6, 0.6), (3.7312, 3.732), (12345.0, 12350.0), (40.0, 40.0)],
)
def test_a_sigma_is_rounded_up_to_four_figures(value, expected):
    assert accounting._rounded_up(value) == expected


@pytest.mark.parametrize("planned", [[], [COUNTS], [Planned("experts", weight=0.0)]])
def test_a_plan_without_anything_to_solve_for_is_a_mistake(planned):
    with pytest.raises(ValueError, match="nothing is left"):
        sigma_for(planned, epsilon=1.0, delta=DELTA)


def test_a_plan_with_an_access_without_noise_has_no_answer():
    with pytest.raises(SettingsError, match="no noise keeps 1 rounds within epsilon 1"):
        sigma_for([Mechanism("images", None), Planned("experts")], epsilon=1.0, delta=DELTA)


# Golden numbers and independent recomputations


@slow
def test_the_renyi_accountant_gives_opacus_own_golden_number():
    # opacus tests/accountants_test.py: 7.32911117143
    spent = renyi([Mechanism("experts", 1.5, 0.04, 2250)], DELTA)

    assert spent == pytest.approx(7.3291112, abs=1e-7)


@slow
@pytest.mark.parametrize(("target", "embeddings", "expert", "prv", "rdp"), GOLDEN)
def test_the_planned_accesses_compose_to_the_golden_figures(target, embeddings, expert, prv, rdp):
    plan = the_plan(embeddings, expert)

    spent = compose(plan, DELTA)

    assert spent.accountant == "prv"
    assert spent.epsilon == pytest.approx(prv, abs=0.005)
    assert spent.epsilon <= target
    assert renyi(plan, DELTA) == pytest.approx(rdp, abs=0.005)


@slow
@pytest.mark.usefixtures("without_prv")
@pytest.mark.parametrize(("target", "embeddings", "expert", "prv", "rdp"), GOLDEN)
def test_where_prv_raises_the_renyi_accountant_answers_and_is_named(
    target, embeddings, expert, prv, rdp
):
    spent = compose(the_plan(embeddings, expert), DELTA)

    assert spent.accountant == "rdp"
    assert spent.epsilon == pytest.approx(rdp, abs=0.005)


def quadrature_renyi(sigma: float, q: float, order: float) -> float:
    """Renyi divergence of the subsampled Gaussian, Mironov et al. 2019, eq. 3, by quadrature.

    A = E over z ~ N(0, sigma^2) of ((1 - q) + q exp((2 z - 1) / (2 sigma^2)))^order.
    """
    z = np.linspace(-12 * sigma, 12 * sigma + order, 50_001)
    ratio = np.log1p(q * np.expm1((2 * z - 1) / (2 * sigma**2)))
    exponent = order * ratio - z**2 / (2 * sigma**2)
    greatest = exponent.max()
    area = np.trapezoid(np.exp(exponent - greatest), z) / (sigma * math.sqrt(2 * math.pi))
    return (math.log(area) + greatest) / (order - 1)


@slow
@pytest.mark.parametrize(("sigma", "q", "steps"), [(1.5, 0.04, 2250), (4.0, 0.3, 100)])
def test_the_renyi_epsilon_equals_an_independent_recomputation(sigma, q, steps):
    orders = [1 + x / 10 for x in range(1, 100)] + list(range(12, 64))

    # Balle et al. 2020, theorem 21: from Renyi divergences to (epsilon, delta)
    epsilon = min(
        steps * quadrature_renyi(sigma, q, order)
        + math.log((order - 1) / order)
        - (math.log(DELTA) + math.log(order)) / (order - 1)
        for order in orders
    )

    assert renyi([Mechanism("experts", sigma, q, steps)], DELTA) == pytest.approx(epsilon, abs=1e-5)


@slow
@pytest.mark.parametrize(("sigma", "q"), [(1.5, 0.04), (0.8, 0.3), (4.0, 0.01)])
@pytest.mark.parametrize("order", [2, 3, 8, 20])
def test_the_renyi_divergence_at_whole_orders_is_mironovs_sum(sigma, q, order):
    # Mironov et al. 2019, sec. 3.3: sum of binomials
    terms = (
        math.comb(order, k) * (1 - q) ** (order - k) * q**k * math.exp((k * k - k) / (2 * sigma**2))
        for k in range(order + 1)
    )

    assert quadrature_renyi(sigma, q, order) == pytest.approx(
        math.log(sum(terms)) / (order - 1), rel=1e-6
    )


def losses(mechanism: Mechanism, grid: np.ndarray) -> np.ndarray:
    """Probabilities of the privacy loss ln(P/Q) of one step, at the nearest points of `grid`.

    P = (1 - q) N(0, sigma^2) + q N(1, sigma^2), Q = N(0, sigma^2): the case of a removed unit.
    """
    sigma, q = mechanism.sigma, mechanism.q
    assert sigma is not None
    z = np.linspace(-12 * sigma, 12 * sigma + 1, 1_000_001)
    under = np.exp(-(z**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    loss = np.log1p(q * np.expm1((2 * z - 1) / (2 * sigma**2)))
    step = grid[1] - grid[0]
    places = np.rint((loss - grid[0]) / step).astype(int)
    return np.bincount(places, under * np.exp(loss) * (z[1] - z[0]), minlength=len(grid))


def recomputed(mechanisms: Sequence[Mechanism], delta: float) -> float:
    """Epsilon by convolving privacy losses: no bound, but near the truth, and not Opacus."""
    grid = np.arange(-(2**17), 2**17) * 2e-4
    total = np.ones(len(grid) // 2 + 1, dtype=complex)
    for of in mechanisms:
        # rolled, so that the loss 0 stands first and circular convolution adds losses
        total = total * np.fft.rfft(np.roll(losses(of, grid), -(2**17))) ** of.steps
    probability = np.roll(np.fft.irfft(total), 2**17)
    low, high = 0.0, 20.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        above = grid > middle
        leaked = np.sum(probability[above] * -np.expm1(middle - grid[above]))
        low, high = (middle, high) if leaked > delta else (low, middle)
    return high


@slow
@pytest.mark.parametrize(("target", "embeddings", "expert", "prv", "rdp"), GOLDEN)
def test_a_mixed_history_equals_an_independent_convolution(target, embeddings, expert, prv, rdp):
    plan = the_plan(embeddings, expert)

    above = compose(plan, DELTA).epsilon - recomputed(plan, DELTA)

    assert 0 <= above <= 1.2 * accounting.EPSILON_ERROR


def balle_wang(epsilon: float, sigma: float) -> float:
    """The least delta of one Gaussian with all units at once: Balle and Wang 2018, theorem 8."""
    special = pytest.importorskip("scipy.special")
    near, far = 1 / (2 * sigma) - epsilon * sigma, -1 / (2 * sigma) - epsilon * sigma
    return math.exp(special.log_ndtr(near)) - math.exp(epsilon + special.log_ndtr(far))


@slow
@pytest.mark.parametrize("sigma", [0.25, 0.5, 0.6003, 1.391, 3.731, 40.0])
@pytest.mark.parametrize("releases", [1, 50])
def test_with_all_units_at_once_epsilon_is_the_exact_one_plus_the_declared_error(sigma, releases):
    spent = compose([Mechanism("class-embeddings", sigma * math.sqrt(releases))] * releases, DELTA)

    above, below = spent.epsilon - 0.011, spent.epsilon
    assert balle_wang(below, sigma) < DELTA < balle_wang(above, sigma)


# Properties


@slow
@pytest.mark.parametrize(("target", "embeddings", "expert", "prv", "rdp"), GOLDEN)
def test_the_whole_costs_no_less_than_its_dearest_part_and_no_more_than_their_sum(
    target, embeddings, expert, prv, rdp
):
    plan = the_plan(embeddings, expert)

    parts = [compose([of], DELTA).epsilon for of in plan]

    assert max(parts) <= compose(plan, DELTA).epsilon <= sum(parts)


@slow
@pytest.mark.parametrize("q", [0.0512, 1.0])
def test_more_noise_costs_less_and_more_steps_cost_more(q):
    by_noise = [compose([Mechanism("a", s, q, 20)], DELTA).epsilon for s in (1.0, 1.5, 3.0, 10.0)]
    by_steps = [compose([Mechanism("a", 3.0, q, n)], DELTA).epsilon for n in (1, 10, 50, 500)]

    assert by_noise == sorted(by_noise, reverse=True)
    assert by_steps == sorted(by_steps)
    assert len(set(by_noise)) == len(set(by_steps)) == 4


@slow
def test_neither_order_nor_splitting_into_rows_changes_a_bit():
    plan = the_plan(5.375, 6.804)
    split = [*plan[:2], Mechanism("experts", 6.804, EXPERT_Q, 500)]
    split.append(Mechanism("again", 6.804, EXPERT_Q, EXPERT_STEPS - 500))

    assert compose(plan, DELTA) == compose(plan[::-1], DELTA) == compose(split, DELTA)


@slow
def test_the_gaussian_approximation_would_have_claimed_too_little():
    # why it is never used: (1.03, .0512, 586) costs 7.95 by PRV, and it says 7.34
    accountants = pytest.importorskip("opacus.accountants")
    with pytest.warns(UserWarning, match="can underestimate"):
        gaussian = accountants.GaussianAccountant()
    gaussian.history = [(1.03, 0.0512, 586)]

    claimed = gaussian.get_epsilon(DELTA)

    assert claimed < 7.4 < 7.9 < compose([Mechanism("experts", 1.03, 0.0512, 586)], DELTA).epsilon


@slow
def test_a_history_with_hardly_any_noise_is_left_to_the_renyi_accountant():
    # the PRV accountant would lay out a quarter of a billion points
    spent = compose([Mechanism("experts", 0.2, EXPERT_Q, 5_859)], DELTA)

    assert spent.accountant == "rdp"
    assert spent.epsilon > 1_000


@slow
@pytest.mark.parametrize("epsilon", [math.nan, math.inf])
def test_an_answer_that_is_no_number_is_none(monkeypatch, epsilon):
    accountants = pytest.importorskip("opacus.accountants")
    monkeypatch.setattr(accountants.PRVAccountant, "get_epsilon", lambda *_, **__: epsilon)

    assert compose([COUNTS], DELTA).accountant == "rdp"


@slow
def test_a_renyi_accountant_that_gives_up_bounds_nothing(monkeypatch):
    accountants = pytest.importorskip("opacus.accountants")
    monkeypatch.setattr(accountants.RDPAccountant, "get_epsilon", lambda *_, **__: math.nan)

    assert compose([COUNTS], DELTA) == Spent(math.inf, DELTA, "rdp")


# Solving for noise


@slow
@pytest.mark.parametrize(
    ("epsilon", "sigma"),
    [(1.0, 3.766), (3.0, 1.395), (8.0, 0.601), (10.0, 0.501), (100.0, 0.0947)],
)
def test_one_release_with_all_units_at_once_needs_the_golden_noise(epsilon, sigma):
    # privacy.md sec. 3, column PRV; the last by the exact formula
    (solved,) = sigma_for([Planned("class-embeddings")], epsilon=epsilon, delta=DELTA)

    assert (solved.name, solved.q, solved.steps) == ("class-embeddings", 1.0, 1)
    assert solved.sigma == pytest.approx(sigma, rel=2e-3)


EMBEDDINGS = [Planned("class-embeddings")]
EXPERTS = [COUNTS, Planned("experts", EXPERT_Q, 20)]
BOTH = [Planned("class-embeddings"), Planned("experts", EXPERT_Q, 20, weight=1.5)]


@slow
@pytest.mark.parametrize(
    ("planned", "epsilon", "repeat"),
    [
        (EMBEDDINGS, 0.05, 1),
        (EMBEDDINGS, 1.0, 3),
        (EMBEDDINGS, 8.0, 1),
        (EXPERTS, 1.0, 1),
        (EXPERTS, 8.0, 3),
        (BOTH, 0.3, 1),
        (BOTH, 8.0, 1),
    ],
)
def test_a_plan_costs_what_was_asked_for_and_hardly_less(planned, epsilon, repeat):
    plan = sigma_for(planned, epsilon=epsilon, delta=DELTA, repeat=repeat)

    spent = compose(plan * repeat, DELTA).epsilon

    assert [of.name for of in plan] == [of.name for of in planned]
    assert 0.995 * epsilon < spent <= epsilon


@slow
def test_fixed_noise_is_kept_and_the_rest_shares_one_scale_by_weight():
    planned = [COUNTS, Planned("class-embeddings"), Planned("experts", 0.1, 20, weight=2.0)]

    counts, embeddings, experts = sigma_for(planned, epsilon=3.0, delta=DELTA)

    assert counts == COUNTS
    assert (experts.q, experts.steps) == (0.1, 20)
    assert embeddings.sigma is not None
    assert experts.sigma == pytest.approx(2 * embeddings.sigma, rel=1e-3)


@slow
@pytest.mark.parametrize(
    ("planned", "epsilon", "repeat"),
    [
        ([Planned("class-embeddings")], 0.009, 1),  # the accountant's own error is .01
        ([COUNTS, Planned("class-embeddings")], 1.0, 300),  # the counts alone cost more
    ],
)
def test_what_no_noise_reaches_is_said_with_a_hint(planned, epsilon, repeat):
    with pytest.raises(SettingsError, match=f"no noise keeps {repeat} rounds") as error:
        sigma_for(planned, epsilon=epsilon, delta=DELTA, repeat=repeat)

    assert "epsilon" in error.value.hint
