"""Scores by which an attacker tells members from others, given shadows of the same pipeline.

All take tables (shadows, images): what each shadow shows of each image, and whether the image was
condensed into it. Rows 2 i and 2 i + 1 are complementary: each image is in one of them. A shadow is
attacked with all other pairs as reference, of which an image is in one half; without its own
complement, or members would have one shadow more without them than others. A higher score says
"member".
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float64

LEAST_PROBABILITY = 1e-6

Signals = Float[np.ndarray, "k n"]
Members = Bool[np.ndarray, "k n"]
AttackScores = Float64[np.ndarray, "k n"]


def logit_margin(probabilities: Signals) -> AttackScores:
    """The log-odds of the true class, log p / (1 - p): nearly Gaussian over models.

    Carlini et al. 2022, "Membership inference attacks from first principles", sec. 4.3.
    """
    bounded = np.clip(probabilities.astype(np.float64), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    margin: AttackScores = np.log(bounded) - np.log1p(-bounded)
    return margin


def lira(signals: Signals, members: Members) -> AttackScores:
    """Log likelihood ratio of two Gaussians for each image, with one variance for all.

    Carlini et al. 2022, sec. 4, with their pooled variance for few shadows.
    """
    values, inside = signals.astype(np.float64), members.astype(np.float64)
    with_it = _mean_of_other_pairs(values, inside)
    without = _mean_of_other_pairs(values, 1 - inside)
    variance = float(np.mean((values - np.where(members, with_it, without)) ** 2))
    ratio: AttackScores = (values - without) ** 2 - (values - with_it) ** 2
    return ratio / (2 * max(variance, 1e-12))


def rmia(probabilities: Signals, members: Members) -> AttackScores:
    """How much likelier an image's class is to the attacked shadow than to the others, as a log.

    Zarifzadeh et al. 2024, "Low-cost high-power membership inference attacks", eq. 3: their score
    is the share of non-members with a lower ratio, which orders images as the ratio itself does.
    """
    bounded = np.maximum(probabilities.astype(np.float64), LEAST_PROBABILITY)
    ratio: AttackScores = np.log(bounded / _mean_of_other_pairs(bounded, np.ones(members.shape)))
    return ratio


def _mean_of_other_pairs(values: np.ndarray, weights: np.ndarray) -> AttackScores:
    """For each shadow, the weighted mean of all shadows but it and its complement."""
    total, weight = (
        table.sum(axis=0) - _of_own_pair(table) for table in (values * weights, weights)
    )
    mean: AttackScores = total / np.maximum(weight, 1e-12)
    return mean


def _of_own_pair(table: np.ndarray) -> np.ndarray:
    """The sum of a row and its complement, in both rows."""
    pairs = table.reshape(len(table) // 2, 2, -1).sum(axis=1)
    return np.repeat(pairs, 2, axis=0)
