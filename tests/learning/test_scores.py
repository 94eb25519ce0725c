from __future__ import annotations

import numpy as np
import pytest

from fedcondense.learning.scores import TestSet as Held
from fedcondense.learning.scores import difference, estimate, pool, resample

RNG = np.random.default_rng(0)
HELD = Held(
    labels=np.repeat(np.arange(2), 100),
    groups=tuple(f"g{i // 2}" for i in range(200)),
    resamples=500,
    seed=0,
)


def predictions(right: float, networks: int = 3) -> np.ndarray:
    hit = RNG.random((networks, 200)) < right
    predicted = np.where(hit, HELD.labels, 1 - HELD.labels)
    return (np.eye(2)[predicted] * 0.8 + 0.1).astype(np.float32)


def test_mean_and_deviation_are_over_networks_and_the_interval_over_resamples():
    values = np.array([[0.5, 0.4, 0.6], [0.7, 0.6, 0.8]])

    found = estimate(values)

    assert (found.mean, found.sd) == pytest.approx((0.6, np.std([0.5, 0.7], ddof=1)))
    assert found.low == pytest.approx(0.505)  # 2.5 % of the way from .5 to .7
    assert found.high == pytest.approx(0.695)


def test_the_interval_holds_the_mean_and_narrows_with_more_groups():
    scored = resample(predictions(0.7), HELD).estimates()["balanced_accuracy"]

    assert scored.low < scored.mean < scored.high
    assert 0.05 < scored.high - scored.low < 0.2


def test_a_set_does_not_differ_from_itself():
    scored = resample(predictions(0.7), HELD)

    gap = difference(scored, scored)

    assert (gap.difference, gap.low, gap.high) == (0, 0, 0)


def test_a_clearly_better_set_has_an_interval_above_zero():
    gap = difference(resample(predictions(0.9), HELD), resample(predictions(0.6), HELD))

    assert gap.low > 0


def test_pooling_takes_all_networks_together():
    few, many = resample(predictions(0.6, 2), HELD), resample(predictions(0.9, 6), HELD)

    together = pool([few, many])

    means = [x.estimates()["accuracy"].mean for x in (few, many, together)]
    assert means[2] == pytest.approx((2 * means[0] + 6 * means[1]) / 8)
    assert together.confusion.sum() == 8 * 200


def test_classes_that_the_test_set_lacks_are_left_out():
    # three classes known, two tested: mass on the third is shared out, not counted as an error
    probabilities = np.zeros((1, 4, 3), dtype=np.float32)
    probabilities[0, :, 0] = [0.3, 0.3, 0.1, 0.1]
    probabilities[0, :, 2] = [0.1, 0.1, 0.3, 0.3]
    probabilities[0, :, 1] = 0.6
    held = Held(np.array([0, 0, 2, 2]), tuple("abcd"), 100, 0)

    scored = resample(probabilities, held)

    assert scored.estimates()["balanced_accuracy"].mean == 1.0
    assert np.isnan(scored.class_recalls()[1])
