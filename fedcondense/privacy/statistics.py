"""Counting and ranking: how surprising a figure would be if nothing were memorised.

Pure functions of plain numbers. Where an exact distribution exists it is used: an audit of twenty
images has no use for approximations of many.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy import special

CONFIDENCE = 0.95  # of every interval
LEAST_TOP = 10  # ranks that are looked at, however few there are
TOP_SHARE = 0.05  # of all ranks, that are looked at
TAIL_SHARE = 0.2  # of a null sample, from which its tail is estimated
LEAST_FOR_TAIL = 50  # of a null sample, below which nothing is said beyond its highest value
_LARGEST_SCORE = 1 - 1e-6  # Fisher's transform of 1 is infinite

Distribution = Float64[np.ndarray, " _"]  # probability of 0, 1, 2, ...


def clopper_pearson(
    hits: int | float, trials: int | float, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Exact interval of a share, from `hits` of `trials` independent ones.

    Clopper & Pearson 1934: each side errs with probability (1 - confidence) / 2 at most.
    """
    error = (1 - confidence) / 2
    low = special.betaincinv(hits, trials - hits + 1, error) if hits > 0 else 0.0
    high = special.betaincinv(hits + 1, trials - hits, 1 - error) if hits < trials else 1.0
    return float(low), float(high)


def binomial_at_least(hits: int, trials: int, chance: float) -> float:
    """P[Binomial(trials, chance) >= hits]: the one-sided binomial test."""
    return 1.0 if hits <= 0 else float(special.betainc(hits, trials - hits + 1, chance))


def at_least(distribution: Distribution, observed: int) -> float:
    """Probability of `observed` or more."""
    return float(min(max(distribution[max(observed, 0) :].sum(), 0.0), 1.0))


def together(distributions: Sequence[Distribution]) -> Distribution:
    """The distribution of the sum of independent counts."""
    total = np.ones(1)
    for distribution in distributions:
        total = np.convolve(total, distribution)
    return total


def chosen_weight(weights: Sequence[int], *, chosen: int, of: int) -> Distribution:
    """The sum of weights that fall to `chosen` groups, drawn from all `of` groups by chance.

    The exact distribution of a permutation test whose labels are dealt again to whole groups, their
    numbers kept; groups that are not in `weights` weigh nothing. With weights of one it is
    hypergeometric.
    """
    table = np.zeros((len(weights) + 1, sum(weights) + 1))  # (drawn so far, weight so far)
    table[0, 0] = 1.0
    drawn = np.arange(len(weights) + 1)[:, None]
    for seen, weight in enumerate(weights):
        chance = np.clip((chosen - drawn) / (of - seen), 0, 1)
        taken, table = table * chance, table * (1 - chance)
        table[1:, weight:] += taken[:-1, : taken.shape[1] - weight]
    return table.sum(axis=0)


def among_the_top(ours: int, others: int, top: int) -> Distribution:
    """How many of `ours` stand among the `top` ranks of all, if all are exchangeable.

    The hypergeometric distribution.
    """
    taken = np.arange(min(ours, top) + 1)
    logs = _log_choose(ours, taken) + _log_choose(others, top - taken)
    logs = logs - _log_choose(ours + others, np.array([top]))
    return np.where(top - taken <= others, np.exp(logs), 0.0)


def ranks_to_look_at(total: int) -> int:
    """How many of `total` ranks are the top: a twentieth, but ten if half of all are as many."""
    return min(max(LEAST_TOP, ceil(TOP_SHARE * total)), total // 2)


def count_at_the_top(
    ours: Float[np.ndarray, " a"], others: Float[np.ndarray, " b"], top: int
) -> int:
    """How many of `ours` are among the `top` highest of all; a tie counts for the others."""
    scores = np.concatenate([others, ours])
    highest = np.argsort(-scores, kind="stable")[:top]
    return int((highest >= len(others)).sum())


def chance_of_reaching(
    null: Float[np.ndarray, " n"], scores: Float[np.ndarray, " m"]
) -> Float64[np.ndarray, " m"]:
    """For each score in [-1, 1], how likely one more of the null sample would reach it.

    Up to the null's highest value it is counted. Beyond it, Fisher's transform of the highest
    fifth, of k values, is taken to fall off exponentially. The predictive probability of such a
    tail is that fifth times (1 + x / (sum of the k excesses))^-k: it knows that its rate was
    estimated from k values.
    """
    sample, asked = np.sort(_fisher(null)), _fisher(scores)
    reached: np.ndarray = (1 + (sample >= asked[:, None]).sum(axis=1)) / (len(sample) + 1)
    if len(sample) < LEAST_FOR_TAIL:
        return reached
    k = int(TAIL_SHARE * len(sample))
    edge = sample[-k - 1]
    total = max(float((sample[-k:] - edge).sum()), 1e-12)
    falling = k / len(sample) * (1 + np.maximum(asked - edge, 0) / total) ** -k
    return np.where(asked > sample[-1], np.minimum(falling, reached), reached)


def area_under_curve(
    scores: Float[np.ndarray, " n"],
    is_member: Bool[np.ndarray, " n"],
    weights: Float64[np.ndarray, "b n"] | None = None,
) -> Float64[np.ndarray, " b"]:
    """P[a member's score > a non-member's] + half of P[equal]: AUC, for each row of weights."""
    weights = np.ones((1, len(scores))) if weights is None else weights
    order = np.argsort(scores, kind="stable")
    _, tie = np.unique(scores[order], return_inverse=True)
    starts = np.flatnonzero(np.diff(tie, prepend=-1))
    members = np.add.reduceat(weights[:, order] * is_member[order], starts, axis=1)
    others = np.add.reduceat(weights[:, order] * ~is_member[order], starts, axis=1)
    below = np.cumsum(others, axis=1) - others / 2
    pairs = members.sum(axis=1) * others.sum(axis=1)
    return (members * below).sum(axis=1) / np.maximum(pairs, 1e-12)


def detected_at(
    scores: Float[np.ndarray, " n"], is_member: Bool[np.ndarray, " n"], false_alarms: float
) -> Bool[np.ndarray, " n"]:
    """Which members an attacker names whose share of false alarms is `false_alarms` at most.

    The limit is a non-member's score that may not be reached, so ties are never named.
    """
    others = np.sort(scores[~is_member])[::-1]
    allowed = int(false_alarms * len(others) + 1e-9)
    limit = others[allowed] if allowed < len(others) else -np.inf
    return is_member & (scores > limit)


def most_explained(false_alarms_seen: int, others: int) -> float:
    """Upper 97.5 % limit of a share of false alarms: what so many non-members can rule out."""
    return clopper_pearson(false_alarms_seen, others)[1]


def group_numbers(groups: Sequence[str]) -> Int64[np.ndarray, " n"]:
    """Every group as a number, in the order of its name."""
    return np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)


def _log_choose(n: int, k: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return special.gammaln(n + 1.0) - special.gammaln(k + 1.0) - special.gammaln(n - k + 1.0)


def _fisher(scores: np.ndarray) -> np.ndarray:
    bounded: np.ndarray = np.clip(scores.astype(np.float64), -_LARGEST_SCORE, _LARGEST_SCORE)
    return np.arctanh(bounded)
