from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcondense.privacy.statistics import (
    among_the_top,
    area_under_curve,
    at_least,
    binomial_at_least,
    chance_of_reaching,
    chosen_weight,
    clopper_pearson,
    count_at_the_top,
    detected_at,
    group_numbers,
    most_explained,
    ranks_to_look_at,
    together,
)


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [
        # 0 of n: high = 1 - (alpha / 2)^(1 / n); the others from the tables of Clopper & Pearson
        (0, 10, 0.0, 1 - 0.025**0.1),
        (10, 10, 0.025**0.1, 1.0),
        (5, 10, 0.1871, 0.8129),
        (1, 20, 0.0013, 0.2487),
    ],
)
def test_the_interval_of_a_share_is_the_exact_one(hits, trials, low, high):
    assert clopper_pearson(hits, trials) == pytest.approx((low, high), abs=5e-5)


def test_the_binomial_tail_is_that_of_coins():
    assert binomial_at_least(8, 10, 0.5) == pytest.approx((45 + 10 + 1) / 1024)
    assert binomial_at_least(0, 10, 0.5) == 1
    assert binomial_at_least(10, 10, 0.8) == pytest.approx(0.8**10)


def test_the_sum_of_independent_counts_has_their_convolution():
    coin = np.array([0.5, 0.5])

    assert together([coin, coin, coin]) == pytest.approx([1 / 8, 3 / 8, 3 / 8, 1 / 8])


def test_at_least_nothing_is_certain():
    assert at_least(np.array([0.2, 0.3, 0.5]), 0) == 1
    assert at_least(np.array([0.2, 0.3, 0.5]), 2) == 0.5
    assert at_least(np.array([0.2, 0.3, 0.5]), 3) == 0


def test_two_of_four_groups_take_the_weight_of_two_by_the_hypergeometric_law():
    assert chosen_weight([1, 1], chosen=2, of=4) == pytest.approx([1 / 6, 4 / 6, 1 / 6])


@given(
    weights=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    weightless=st.integers(0, 3),
    data=st.data(),
)
def test_chosen_weight_counts_every_way_to_choose(weights, weightless, data):
    of = len(weights) + weightless
    chosen = data.draw(st.integers(0, of))
    every = [sum(c) for c in combinations([*weights, *[0] * weightless], chosen)]

    distribution = chosen_weight(weights, chosen=chosen, of=of)

    expected = np.bincount(every, minlength=sum(weights) + 1) / len(every)
    assert distribution == pytest.approx(expected, abs=1e-12)


def test_among_many_groups_the_permutation_agrees_with_the_binomial_test():
    exact = at_least(chosen_weight([1] * 20, chosen=80_000, of=100_000), 19)

    assert exact == pytest.approx(binomial_at_least(19, 20, 0.8), rel=1e-3)


def test_a_group_next_to_many_images_makes_a_count_less_surprising():
    spread = at_least(chosen_weight([1] * 12, chosen=80, of=100), 12)
    heaped = at_least(chosen_weight([6, 6], chosen=80, of=100), 12)

    assert heaped == pytest.approx(80 / 100 * 79 / 99)
    assert spread < 0.07 < heaped


def test_the_top_ranks_are_shared_by_the_hypergeometric_law():
    assert among_the_top(2, 2, 2) == pytest.approx([1 / 6, 4 / 6, 1 / 6])
    assert among_the_top(3, 1, 2) == pytest.approx([0, 1 / 2, 1 / 2])
    assert among_the_top(20, 300, 16).sum() == pytest.approx(1)


def test_a_tie_at_the_top_counts_for_the_others():
    ours, others = np.array([3.0, 1.0]), np.array([3.0, 2.0])

    assert [count_at_the_top(ours, others, top) for top in (1, 2, 3, 4)] == [0, 1, 1, 2]


def test_a_twentieth_of_the_ranks_is_the_top_and_ten_of_a_few():
    assert [ranks_to_look_at(n) for n in (12, 48, 320, 1_000)] == [6, 10, 16, 50]


def test_within_the_null_sample_the_chance_is_counted():
    null = np.linspace(0, 0.99, 99)

    chances = chance_of_reaching(null, np.array([0.0, 0.5, 0.99]))

    assert chances == pytest.approx([1.0, (1 + (null >= 0.5).sum()) / 100, 2 / 100])


def test_a_small_null_sample_says_nothing_beyond_its_highest_value():
    assert chance_of_reaching(np.linspace(0, 0.5, 20), np.array([0.999])) == pytest.approx(1 / 21)


def test_beyond_the_null_sample_the_chance_falls_without_end():
    null = np.random.default_rng(0).uniform(0, 0.5, 200)

    chances = chance_of_reaching(null, np.array([0.6, 0.8, 0.99]))

    assert np.all(np.diff(chances) < 0)
    assert chances[-1] < 1e-6


def test_of_an_exponential_tail_the_chance_is_not_understated():
    random = np.random.default_rng(0)
    samples = np.tanh(random.exponential(0.1, (2_000, 61)))

    chances = np.array([chance_of_reaching(row[1:], row[:1])[0] for row in samples])

    # 61 equal chances: one in 61 is the highest, beyond which only the tail speaks
    for level in (0.001, 0.01, 0.1):
        assert (chances <= level).mean() < level + 4 * (level / 2_000) ** 0.5


def test_the_area_counts_pairs_and_half_of_ties():
    scores, is_member = np.array([3.0, 1.0, 2.0, 0.0]), np.array([True, True, False, False])

    assert area_under_curve(scores, is_member) == pytest.approx(3 / 4)
    assert area_under_curve(np.ones(4), is_member) == pytest.approx(0.5)


@given(seed=st.integers(0, 1_000))
def test_a_weight_of_two_is_an_image_that_stands_twice(seed):
    random = np.random.default_rng(seed)
    scores = random.integers(0, 5, 12).astype(float)
    is_member = np.arange(12) % 2 == 0
    weights = random.integers(0, 3, (1, 12)).astype(float) + np.eye(12)[:1] + np.eye(12)[1:2]
    rows = np.repeat(np.arange(12), weights[0].astype(int))

    weighted = area_under_curve(scores, is_member, weights)

    assert weighted == pytest.approx(area_under_curve(scores[rows], is_member[rows]))


def test_members_are_named_above_the_scores_of_all_but_the_allowed_others():
    scores = np.array([9.0, 5.0, 3.0, 8.0, 4.0, 2.0, 1.0])
    is_member = np.array([True, True, True, False, False, False, False])

    named = [detected_at(scores, is_member, share).sum() for share in (0.0, 0.25, 0.5, 1.0)]

    assert named == [1, 2, 3, 3]


def test_a_member_that_scores_like_the_limit_is_not_named():
    assert not detected_at(np.array([1.0, 1.0]), np.array([True, False]), 0.0).any()


def test_many_others_without_an_alarm_rule_out_a_rate():
    # 1 - .025^(1/n), which is 3.7 / n
    assert most_explained(0, 500) == pytest.approx(3.7 / 500, rel=0.01)


def test_groups_are_numbered_by_name():
    assert group_numbers(["q", "p", "q"]).tolist() == [1, 0, 1]
