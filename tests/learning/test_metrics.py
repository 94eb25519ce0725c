from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcondense.learning import metrics


def one(n):
    return np.ones((1, n))


def as_probabilities(predicted, k):
    return np.eye(k)[predicted] * 0.8 + 0.2 / k


def test_a_hand_counted_confusion():
    labels = np.array([0, 0, 0, 1])
    counts = metrics.confusion(as_probabilities([0, 0, 1, 1], 2), labels, one(4))

    assert counts.tolist() == [[[2, 1], [0, 1]]]
    assert metrics.balanced_accuracy(counts) == pytest.approx((2 / 3 + 1) / 2)
    assert metrics.accuracy(counts) == pytest.approx(3 / 4)
    assert metrics.macro_f1(counts) == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_a_class_without_images_is_left_out_of_the_means():
    counts = metrics.confusion(as_probabilities([0, 2], 3), np.array([0, 0]), one(2))

    assert metrics.balanced_accuracy(counts) == pytest.approx(0.5)
    assert metrics.macro_f1(counts) == pytest.approx(2 / 3)


def _pairwise_area(scores, positive):
    """AUROC by its definition: a positive outranks a negative, ties count half."""
    gaps = scores[positive][:, None] - scores[~positive][None, :]
    return np.mean((gaps > 0) + 0.5 * (gaps == 0))


@given(seed=st.integers(0, 10_000))
def test_the_area_is_the_chance_that_a_positive_outranks_a_negative(seed):
    rng = np.random.default_rng(seed)
    probabilities = rng.integers(0, 4, (30, 3)) / 4  # many ties
    labels = np.concatenate([np.arange(3), rng.integers(0, 3, 27)])

    area, _ = metrics.ranking(probabilities, labels, one(30))

    expected = np.mean([_pairwise_area(probabilities[:, c], labels == c) for c in range(3)])
    assert area[0] == pytest.approx(expected)


def test_sensitivity_is_read_at_the_last_threshold_that_keeps_the_specificity():
    # ten negatives, one of which outranks all but two of the four positives
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, *np.linspace(0.4, 0.1, 9)])
    positive = np.array([True, True, False, True, True] + [False] * 9)

    _, sensitivity = metrics._one_against_rest(scores, positive, one(14))

    assert sensitivity[0] == 1.0  # 1 of 10 false alarms is allowed


def test_a_second_false_alarm_is_too_many():
    scores = np.array([0.9, 0.8, 0.7, 0.6, *np.linspace(0.4, 0.1, 8)])
    positive = np.array([True, False, False, True] + [False] * 8)

    _, sensitivity = metrics._one_against_rest(scores, positive, one(12))

    assert sensitivity[0] == 0.5


def test_calibration_error_by_hand():
    # three images at confidence .9, two right: |.9 - 2/3|; one at .6, wrong: .6
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.6, 0.4]])
    labels = np.array([0, 0, 1, 1])

    error = metrics.calibration_error(probabilities, labels, one(4))

    assert error[0] == pytest.approx((3 * (0.9 - 2 / 3) + 0.6) / 4)


@given(seed=st.integers(0, 10_000))
def test_an_image_weighted_twice_counts_as_two_images(seed):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(3), 12)
    labels = np.concatenate([np.arange(3), rng.integers(0, 3, 9)])
    times = rng.integers(1, 4, 12)

    weighted = metrics.all_metrics(probabilities, labels, times[None].astype(float))

    repeated = np.repeat(np.arange(12), times)
    plain = metrics.all_metrics(probabilities[repeated], labels[repeated], one(len(repeated)))
    assert np.allclose(weighted, plain)


def test_groups_are_drawn_whole():
    weights = metrics.resampling_weights(["a", "b", "a", "c"], 50, seed=0)

    assert weights.shape == (51, 4)
    assert (weights[0] == 1).all()
    assert (weights[:, 0] == weights[:, 2]).all()
    assert weights[1:, [0, 1, 3]].sum(axis=1).tolist() == [3.0] * 50
