"""Lower bounds on epsilon from planted canaries: what a mechanism spends at least, measured.

Steinke, Nasr & Jagielski 2023, "Privacy auditing with one (1) training run": of m canaries each is
planted with probability one half; an attacker guesses which, where it is surest. Under
(epsilon, delta)-DP right guesses are at most as many as coins that fall right with probability
e^epsilon / (1 + e^epsilon), but for a term of delta that is negligible here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fedcondense.privacy.statistics import binomial_at_least

CONFIDENCE = 0.95
Mechanism = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def epsilon_lower_bound(right: int, guesses: int, confidence: float = CONFIDENCE) -> float:
    """The largest epsilon that so many right guesses rule out; 0 if they rule out none."""

    def is_ruled_out(epsilon: float) -> bool:
        return binomial_at_least(right, guesses, 1 / (1 + np.exp(-epsilon))) <= 1 - confidence

    low, high = 0.0, 50.0
    if not is_ruled_out(low):
        return 0.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if is_ruled_out(middle) else (low, middle)
    return low


def right_guesses(scores: np.ndarray, planted: np.ndarray, guesses: int) -> int:
    """Guess "planted" for the highest scores and "not planted" for the lowest, half of each."""
    order = np.argsort(scores)
    lowest, highest = order[: guesses // 2], order[len(order) - guesses // 2 :]
    return int((~planted[lowest]).sum() + planted[highest].sum())


def audited_epsilon(
    canaries: np.ndarray, mechanism: Mechanism, random: np.random.Generator, guesses: int
) -> float:
    """Plant half of the canaries (m, d), release their sum, guess by its products with each."""
    planted = random.random(len(canaries)) < 0.5
    scores = canaries @ mechanism(canaries[planted], random)
    return epsilon_lower_bound(right_guesses(scores, planted, guesses), guesses)


def gaussian_sum(sigma: float) -> Mechanism:
    """The sum of vectors of length one at most, with noise of `sigma` on each coordinate."""

    def release(vectors: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return vectors.sum(axis=0) + sigma * random.standard_normal(vectors.shape[1])

    return release


def spread_canaries(count: int, dimensions: int) -> np.ndarray:
    """Vectors of length one, orthogonal where there is room."""
    if count <= dimensions:
        return np.eye(dimensions)[:count]
    drawn = np.random.default_rng(0).standard_normal((count, dimensions))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
