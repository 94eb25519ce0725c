from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcondense.privacy.attack_scores import lira, logit_margin, rmia
from fedcondense.privacy.statistics import area_under_curve


def table(seed: int, *, leak: float) -> tuple[np.ndarray, np.ndarray]:
    """Signals of 8 shadows and 60 images of uneven difficulty, and who is in which."""
    random = np.random.default_rng(seed)
    halves = np.stack([random.permutation(60) < 30 for _ in range(4)])  # and their complements
    members = np.stack([halves, ~halves], axis=1).reshape(8, 60)
    difficulty = 3 * random.standard_normal(60)
    return difficulty + leak * members + random.standard_normal((8, 60)), members


def mean_area(scores: np.ndarray, members: np.ndarray) -> float:
    return float(np.mean([area_under_curve(s, m)[0] for s, m in zip(scores, members, strict=True)]))


def test_the_margin_is_the_log_odds():
    probabilities = np.array([[0.5, 0.9, 0.1, 1.0]])

    margin = logit_margin(probabilities)

    assert margin[0, :3] == pytest.approx([0, np.log(9), -np.log(9)])
    assert margin[0, 3] == pytest.approx(np.log(1e6), rel=1e-3)


def test_the_likelihood_ratio_of_two_pairs_by_hand():
    # one image, in the first shadow of each pair; the reference is the other pair
    signals = np.array([[2.0], [0.0], [4.0], [2.0]])
    members = np.array([[True], [False], [True], [False]])

    scores = lira(signals, members)

    # residuals by what is true: 2 - 4, 0 - 2, 4 - 2, 2 - 0: variance 4
    expected = [
        ((2 - 2) ** 2 - (2 - 4) ** 2) / 8,
        ((0 - 2) ** 2 - (0 - 4) ** 2) / 8,
        ((4 - 0) ** 2 - (4 - 2) ** 2) / 8,
        ((2 - 0) ** 2 - (2 - 2) ** 2) / 8,
    ]
    assert scores[:, 0] == pytest.approx(expected)


def test_an_image_is_held_against_what_others_say_of_it():
    # the attacked shadow tells the first two alike, but the second is easy for all others
    probabilities = np.full((4, 3), 0.5)
    probabilities[0] = [0.8, 0.8, 0.5]
    probabilities[2:] = [0.2, 0.8, 1.0]
    members = np.array([[True, False, False], [False, True, True]] * 2)

    scores = rmia(probabilities, members)

    assert np.exp(scores[0]) == pytest.approx([4, 1, 1 / 2])


@given(seed=st.integers(0, 1_000))
def test_calibrating_by_the_image_finds_a_leak_that_raw_signals_hide(seed):
    signals, members = table(seed, leak=2.0)

    assert mean_area(lira(signals, members), members) > mean_area(signals, members) + 0.1


@pytest.mark.parametrize("score", [lira, lambda s, m: rmia(1 / (1 + np.exp(-s)), m)])
def test_without_a_leak_no_score_finds_one(score):
    areas = [mean_area(score(*made), made[1]) for made in (table(s, leak=0.0) for s in range(20))]

    assert np.mean(areas) == pytest.approx(0.5, abs=0.02)
