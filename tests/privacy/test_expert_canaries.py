"""Epsilon of dp-sgd measured from below: canaries in steps that are honest, and in broken ones."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from canary_kit import audited_epsilon
from dp_sgd_kit import one_each
from torch import nn

from fedcondense.privacy.accounting import Mechanism, compose

SIDE = 20
CANARIES, GUESSES = SIDE * SIDE, 80  # one pixel to each: their gradients are orthogonal
SIGMA = {1.0: 3.731, 3.0: 1.391}  # one step on all units at delta 1e-5 (Balle & Wang 2018)
BRIGHT = 10.0  # far above what a clip of 1 lets through


def released(canaries: np.ndarray, random: np.random.Generator, *, sigma: float) -> np.ndarray:
    """What one step of the mechanism gives away of the planted canaries, as a vector of pixels.

    The network is linear in the pixels and begins at zero, so the gradient of an image that is one
    bright pixel of class 0 is (-1, 1) at that pixel, cut to length 1 by the clip.
    """
    from fedcondense.privacy.unit_gradients import NoisyDescent

    network = nn.Sequential(nn.Flatten(), nn.Linear(CANARIES, 2, bias=False))
    nn.init.zeros_(network[1].weight)
    descent = NoisyDescent(
        network, partial(torch.optim.SGD, lr=1.0), clip=1.0, sigma=sigma, expected=1.0
    )
    images = torch.from_numpy(BRIGHT * canaries).float().view(-1, 1, SIDE, SIDE)
    labels = torch.zeros(len(images), dtype=torch.int64)
    descent.step([one_each(len(images))], lambda part: (images[part.rows], labels[part.rows]))
    away = network[1].weight.detach().double().numpy()
    return (away[0] - away[1]) / np.sqrt(2)


def bounds(sigma: float) -> list[float]:
    random, mechanism = np.random.default_rng(1), partial(released, sigma=sigma)
    return [audited_epsilon(np.eye(CANARIES), mechanism, random, GUESSES) for _ in range(10)]


def test_a_canary_is_cut_to_the_clip():
    moved = released(np.eye(CANARIES)[:2], np.random.default_rng(0), sigma=1e-9)

    assert moved[:3] == pytest.approx([1.0, 1.0, 0.0], abs=1e-5)


@pytest.mark.parametrize("epsilon", SIGMA)
def test_canaries_do_not_refute_steps_of_dp_sgd(epsilon):
    found = bounds(SIGMA[epsilon])

    assert compose([Mechanism("experts", SIGMA[epsilon])], 1e-5).epsilon <= epsilon + 0.011
    assert max(found) < epsilon
    assert np.median(found) > 0  # an attack that sees nothing could not refute anything


@pytest.mark.parametrize("epsilon", SIGMA)
def test_canaries_refute_steps_with_a_tenth_of_the_noise(epsilon):
    assert min(bounds(SIGMA[epsilon] / 10)) > epsilon
