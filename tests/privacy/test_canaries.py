"""Epsilon measured from below: canaries in an honest mechanism and in one broken on purpose."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from canary_kit import (
    audited_epsilon,
    epsilon_lower_bound,
    gaussian_sum,
    right_guesses,
    spread_canaries,
)
from dp_embed_kit import embed_study, row

from fedcondense.config.study import Study
from fedcondense.learning.feature_maps import public_maps, unit_embeddings
from fedcondense.learning.pixels import normalise
from fedcondense.learning.randomness import secret_normal
from fedcondense.privacy import dp_embed
from fedcondense.privacy.dp_embed import release_class_embeddings, sensitivity
from fedcondense.privacy.units import UnitImages

# exact sigma of one full-batch Gaussian at delta 1e-5 (Balle & Wang 2018)
SIGMA = {1.0: 3.731, 3.0: 1.391}
CANARIES, GUESSES = 400, 80


def test_all_of_a_hundred_right_guesses_rule_out_an_epsilon_of_three():
    # p^100 = .05, so p = .9705 and epsilon = ln(p / (1 - p)) = 3.49
    p = 0.05 ** (1 / 100)

    assert epsilon_lower_bound(100, 100) == pytest.approx(np.log(p / (1 - p)), abs=1e-4)


def test_half_of_the_guesses_right_rule_out_nothing():
    assert epsilon_lower_bound(50, 100) == 0
    assert epsilon_lower_bound(0, 100) == 0


def test_guesses_are_made_where_scores_are_extreme():
    scores = np.array([5.0, 4.0, 0.1, -0.1, -4.0, -5.0])
    planted = np.array([True, False, False, True, False, False])

    assert right_guesses(scores, planted, 2) == 2
    assert right_guesses(scores, planted, 4) == 3


@pytest.mark.parametrize("dimensions", [400, 2_000])
@pytest.mark.parametrize("epsilon", SIGMA)
def test_canaries_do_not_refute_an_honest_gaussian(epsilon, dimensions):
    canaries, random = spread_canaries(CANARIES, dimensions), np.random.default_rng(1)

    bounds = [
        audited_epsilon(canaries, gaussian_sum(SIGMA[epsilon]), random, GUESSES) for _ in range(20)
    ]

    assert max(bounds) < epsilon
    assert np.median(bounds) > 0  # an attack that sees nothing could not refute anything


@pytest.mark.parametrize("epsilon", SIGMA)
def test_canaries_refute_a_gaussian_with_a_tenth_of_the_noise(epsilon):
    canaries, random = spread_canaries(CANARIES, CANARIES), np.random.default_rng(1)

    bounds = [
        audited_epsilon(canaries, gaussian_sum(SIGMA[epsilon] / 10), random, GUESSES)
        for _ in range(20)
    ]

    assert min(bounds) > epsilon


# The mechanism of this package: one canary to a class and release, so that none hides another.
CLASSES = tuple(f"class {number}" for number in range(20))
RELEASES = CANARIES // len(CLASSES)


def study_of_canaries() -> Study:
    return embed_study(classes=list(CLASSES), images_per_class=1)


def canary_scores(sigma: float, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    """Release class embeddings again and again; the score of each canary, and whether it was in.

    A canary is an image that is alone in its class or is not there. Its direction is what it adds
    to the sums, count coordinate included.
    """
    study, random = study_of_canaries(), np.random.default_rng(2)
    maps = public_maps(study, study.privacy.maps)
    # a noised count of one canary is below 1 half the time; which classes stay is not asked here
    monkeypatch.setattr(dp_embed, "_large", lambda counts, least: tuple(range(len(counts))))
    monkeypatch.setattr(dp_embed, "public_maps", lambda *_, **__: maps)
    images = torch.from_numpy(random.integers(0, 256, (len(CLASSES), 1, 16, 16), dtype=np.uint8))
    directions = _directions(images, study, maps)
    planted = random.random((RELEASES, len(CLASSES))) < 0.5
    scores = []
    for chosen in planted:
        labels = torch.from_numpy(np.flatnonzero(chosen))
        units = UnitImages.by_image(images[labels], labels)
        sums = release_class_embeddings(units, study, row(sigma), least=1).sums
        scores.append((sums * directions).sum(dim=(0, 2)).numpy())
    return np.stack(scores), planted


def _directions(images, study, maps) -> torch.Tensor:
    weight = study.privacy.count_weight
    vectors = torch.stack([unit_embeddings(m, normalise(images, study.image)) for m in maps])
    return torch.nn.functional.pad(vectors.double(), (0, 1), value=weight)


def bound_of(scores: np.ndarray, planted: np.ndarray) -> float:
    right = right_guesses(scores.flatten(), planted.flatten(), GUESSES)
    return epsilon_lower_bound(right, GUESSES)


@pytest.mark.parametrize("epsilon", SIGMA)
def test_canaries_do_not_refute_class_embeddings(epsilon, monkeypatch):
    scores, planted = canary_scores(SIGMA[epsilon], monkeypatch)

    assert bound_of(scores, planted) < epsilon


def test_a_canary_moves_its_score_by_the_sensitivity_squared(monkeypatch):
    study = study_of_canaries()
    scores, planted = canary_scores(1e-6, monkeypatch)

    moved = sensitivity(study.privacy.maps, study.privacy.count_weight) ** 2
    assert scores[planted] == pytest.approx(moved, rel=1e-3)
    assert scores[~planted] == pytest.approx(0, abs=1e-3 * moved)


@pytest.mark.parametrize("epsilon", SIGMA)
def test_canaries_refute_class_embeddings_with_a_tenth_of_the_noise(epsilon, monkeypatch):
    monkeypatch.setattr(dp_embed, "secret_normal", lambda *shape: secret_normal(*shape) / 10)

    scores, planted = canary_scores(SIGMA[epsilon], monkeypatch)

    assert bound_of(scores, planted) > epsilon
