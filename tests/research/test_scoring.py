from __future__ import annotations

import numpy as np
import pytest

from fedcondense.learning.scores import TestSet as Held
from fedcondense.research.scoring import pool_repetitions, score

CLASSES = ("a", "b")
HELD = Held(np.repeat(np.arange(2), 60), tuple(f"p{i // 2}" for i in range(120)), 300, 0)
COUNTS = {
    "global": 4,
    "ceiling": 90,
    "random_real": 4,
    "random_real_expanded": 4,
    "site_alone/x": 50,
    "site_alone/y": 40,
    "site_joined/x": 54,
    "site_joined/y": 44,
}


def predicted(right: float, networks: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    hit = rng.random((networks, 120)) < right
    return (np.eye(2)[np.where(hit, HELD.labels, 1 - HELD.labels)] * 0.9 + 0.05).astype(np.float32)


def predictions(seed: int = 0, better: float = 0.0) -> dict[str, np.ndarray]:
    return {
        "global": predicted(0.7 + better, 3, seed),
        "ceiling": predicted(0.9, 3, seed + 1),
        "random_real/0": predicted(0.6, 1, seed + 2),
        "random_real/1": predicted(0.5, 1, seed + 3),
        "random_real_expanded/0": predicted(0.65, 1, seed + 4),
        "random_real_expanded/1": predicted(0.65, 1, seed + 5),
        "site_alone/x": predicted(0.6, 3, seed + 6),
        "site_alone/y": predicted(0.8, 3, seed + 7),
        "site_joined/x": predicted(0.75, 3, seed + 8),
        "site_joined/y": predicted(0.8, 3, seed + 9),
    }


def scored(seed=0, better=0.0):
    found = predictions(seed, better)
    return score(found, HELD, classes=CLASSES, stored=COUNTS, views=COUNTS)


def test_the_draws_of_random_images_are_scored_as_one_set():
    scores = scored().scores()

    found = predictions()
    hits = [(found[f"random_real/{d}"][0].argmax(axis=1) == HELD.labels).mean() for d in range(2)]
    assert scores.random_real.networks == 2
    assert scores.random_real.accuracy.mean == pytest.approx(np.mean(hits))


def test_the_mean_of_sites_weighs_every_site_alike():
    alone = scored().scores().site_alone

    means = [site.balanced_accuracy.mean for site in alone.sites.values()]
    assert alone.mean.balanced_accuracy.mean == pytest.approx(np.mean(means))


def test_the_gain_of_joining_is_joined_less_alone():
    found = scored()

    scores, gains = found.scores(), found.gains()

    for name, gain in gains.joining.sites.items():
        joined = scores.site_joined.sites[name].balanced_accuracy.mean
        alone = scores.site_alone.sites[name].balanced_accuracy.mean
        assert gain.difference == pytest.approx(joined - alone)
    mean = np.mean([gain.difference for gain in gains.joining.sites.values()])
    assert gains.joining.mean.difference == pytest.approx(mean)


def test_pooling_one_repetition_changes_no_figure_of_a_set():
    one = scored()

    pooled = pool_repetitions({7: one})

    assert pooled.scores().global_set == one.scores().global_set
    assert pooled.gains().joining.mean == one.gains().joining.mean
    assert set(pooled.scores().site_alone.sites) == {"x, seed 7", "y, seed 7"}


def test_the_interval_of_several_repetitions_is_that_of_their_mean():
    one, other = scored(0), scored(50, better=0.1)

    pooled = pool_repetitions({0: one, 1: other})

    means = [s.gains().global_minus_random_real.difference for s in (one, other)]
    gain = pooled.gains().global_minus_random_real
    assert gain.difference == pytest.approx(np.mean(means))
    assert gain.low < gain.difference < gain.high
    assert pooled.scores().global_set.networks == 6
