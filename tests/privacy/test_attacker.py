from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcondense.privacy.accounting import Mechanism, Spent
from fedcondense.privacy.attacker import (
    DELTAS,
    EVERYTHING,
    Allowed,
    allowed,
    allowed_by,
    allowed_by_gaussian,
)

epsilons = st.floats(0, 50)
deltas = st.floats(0, 0.5)


def never_asked(*_: object) -> Spent:
    raise AssertionError("an exact bound needs no accountant")


def figures(bound: Allowed) -> tuple[float, float, float]:
    return bound.tpr_at_0_1_percent, bound.tpr_at_1_percent, bound.auc


@pytest.mark.parametrize(
    ("sigma", "tenth", "one", "auc"),
    [
        (3.731, 0.002, 0.020, 0.575),
        (1.391, 0.009, 0.054, 0.694),
        (0.6003, 0.077, 0.255, 0.881),
        (0.500, 0.138, 0.37, 0.921),
    ],
)
def test_a_gaussian_allows_what_the_golden_table_says(sigma, tenth, one, auc):
    # shared design, privacy.md sec. 3: epsilon 1, 3, 8, 10 at delta 1e-5
    bound = allowed_by_gaussian(1 / sigma)

    assert bound.tpr_at_0_1_percent == pytest.approx(tenth, abs=6e-4)
    assert bound.tpr_at_1_percent == pytest.approx(one, abs=3e-3)
    assert bound.auc == pytest.approx(auc, abs=6e-4)


def test_endless_noise_allows_guessing_and_nothing_more():
    assert figures(allowed_by_gaussian(0.0)) == pytest.approx((0.001, 0.01, 0.5))
    assert figures(allowed_by(Spent(0.0, 0.0, "prv"))) == pytest.approx((0.001, 0.01, 0.5))


def test_epsilon_ln_3_is_counted_by_hand():
    # TPR <= 3 FPR + .1; the sides meet at FPR = .9 / 4, the area under them is 1 - .9^2 / 4
    bound = allowed_by(Spent(math.log(3), 0.1, "prv"))

    assert figures(bound) == pytest.approx((0.103, 0.13, 1 - 0.81 / 4))


def test_a_large_epsilon_meets_the_mirrored_side():
    # e^5 .01 = 1.48, so the other side counts: 1 - e^-5 (1 - .01)
    bound = allowed_by(Spent(5.0, 0.0, "rdp"))

    assert bound.tpr_at_1_percent == pytest.approx(1 - math.exp(-5) * 0.99)


def test_no_guarantee_allows_everything():
    assert allowed_by(Spent(math.inf, 1e-5, "none")) == EVERYTHING
    assert allowed([Mechanism("images", None)], compose=never_asked) == EVERYTHING


def test_an_epsilon_beyond_the_largest_number_allows_everything_too():
    assert figures(allowed_by(Spent(5_000.0, 1e-5, "rdp"))) == (1.0, 1.0, 1.0)


@given(epsilon=epsilons, delta=deltas)
def test_the_area_is_that_under_the_two_sides(epsilon, delta):
    steps = 4_000
    rates = [(k + 0.5) / steps for k in range(steps)]
    grown, shrunk = math.exp(epsilon), math.exp(-epsilon)

    area = sum(min(1, grown * x + delta, 1 - shrunk * (1 - delta - x)) for x in rates) / steps

    assert allowed_by(Spent(epsilon, delta, "prv")).auc == pytest.approx(area, abs=2e-3)


@given(epsilon=epsilons, more=st.floats(0, 5), delta=deltas)
def test_a_weaker_guarantee_never_allows_less(epsilon, more, delta):
    strong = allowed_by(Spent(epsilon, delta, "prv"))
    weak = allowed_by(Spent(epsilon + more, delta, "prv"))

    assert all(a <= b + 1e-12 for a, b in zip(figures(strong), figures(weak), strict=True))
    assert all(0 <= of <= 1 for of in (*figures(strong), *figures(weak)))


def test_releases_with_all_units_at_once_compose_to_one_exactly():
    together = allowed(
        [Mechanism("class-counts", 6.0), Mechanism("class-embeddings", 4.0, steps=3)],
        compose=never_asked,
    )

    assert together == allowed_by_gaussian(math.sqrt(1 / 36 + 3 / 16))


def test_a_sampled_history_is_judged_by_its_best_guarantee():
    by_delta = {delta: Spent(-math.log(delta) / 4, delta, "prv") for delta in DELTAS}
    sampled = [Mechanism("experts", 1.0, 0.1, 10)]

    bound = allowed(sampled, compose=lambda _, delta: by_delta[delta])

    each = [figures(allowed_by(spent)) for spent in by_delta.values()]
    assert figures(bound) == tuple(min(column) for column in zip(*each, strict=True))
    assert len(set(each)) == len(DELTAS)


@pytest.mark.slow
def test_the_general_bound_lies_above_the_exact_one_and_below_that_of_one_delta():
    exact = allowed([Mechanism("class-embeddings", 0.601)])
    nearly = allowed([Mechanism("class-embeddings", 0.601, q=1 - 1e-9)])
    single = allowed_by(Spent(8.0, 1e-5, "prv"))

    for least, some, most in zip(figures(exact), figures(nearly), figures(single), strict=True):
        assert least <= some < most
