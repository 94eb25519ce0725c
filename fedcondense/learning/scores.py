"""Scores of predictions over fresh networks, with intervals that resample groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64

from fedcondense.learning.metrics import (
    METRICS,
    all_metrics,
    confusion,
    recalls,
    resampling_weights,
)

LOW, HIGH = 2.5, 97.5  # percentiles of a 95 % interval


@dataclass(frozen=True)
class TestSet:
    """What predictions are held against: labels and groups, drawn again for the bootstrap."""

    labels: Int64[np.ndarray, " n"]
    groups: tuple[str, ...]
    resamples: int
    seed: int

    def weights(self) -> Float64[np.ndarray, "b n"]:
        """The same resamples every time, so that differences are paired."""
        return resampling_weights(self.groups, self.resamples, self.seed)


@dataclass(frozen=True)
class Estimate:
    """A figure: mean and standard deviation over networks, 95 % interval over groups."""

    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A paired difference of two figures with its 95 % interval over groups."""

    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Resampled:
    """Every metric (6, networks, 1 + resamples); the first resample is the sample itself.

    What several sets are scored by is combined here, before any interval is taken, so that
    pooled and paired figures use the same resamples throughout.
    """

    values: Float64[np.ndarray, "6 m b"]
    confusion: Float64[np.ndarray, "k k"]

    def estimates(self) -> dict[str, Estimate]:
        """Each of `METRICS`, its interval being that of the mean over networks."""
        return {name: estimate(self.values[i]) for i, name in enumerate(METRICS)}

    def class_recalls(self) -> Float64[np.ndarray, " k"]:
        """Recall of each class over all networks; NaN where the test set has none."""
        return recalls(self.confusion[None])[0]


def estimate(values: Float64[np.ndarray, "m b"]) -> Estimate:
    """Mean ± sd over networks of the sample, percentile interval of the mean over resamples."""
    low, high = np.nanpercentile(values[:, 1:].mean(axis=0), [LOW, HIGH])
    sample = values[:, 0]
    sd = float(sample.std(ddof=1)) if len(sample) > 1 else 0.0
    return Estimate(float(sample.mean()), sd, float(low), float(high))


def resample(probabilities: Float[np.ndarray, "m n k"], test: TestSet) -> Resampled:
    """Score each network's predictions (networks, N, K) on the test set and its resamples.

    Classes that the test set lacks are left out and the rest renormalised: COVID against Normal
    is then a question of two classes.
    """
    present = np.unique(test.labels)
    labels = np.searchsorted(present, test.labels)
    shares = probabilities[:, :, present].astype(np.float64)
    shares = shares / np.maximum(shares.sum(axis=2, keepdims=True), 1e-12)
    weights = test.weights()
    values = np.stack([all_metrics(p, labels, weights) for p in shares], axis=1)
    counts = np.zeros((probabilities.shape[2],) * 2)
    one = np.ones((1, len(labels)))
    counts[np.ix_(present, present)] = sum(confusion(p, labels, one)[0] for p in shares)
    return Resampled(values, counts)


def pool(parts: Sequence[Resampled]) -> Resampled:
    """The networks of several scorings on one test set, taken together."""
    values = np.concatenate([part.values for part in parts], axis=1)
    return Resampled(values, np.sum([part.confusion for part in parts], axis=0))


def average(parts: Sequence[Resampled]) -> Resampled:
    """The mean of several scorings, network by network; its confusion is the mean of row shares."""
    values = np.mean([part.values for part in parts], axis=0)
    shares = [row_shares(part.confusion) for part in parts]
    return Resampled(values, np.mean(shares, axis=0))


def row_shares(counts: Float64[np.ndarray, "k k"]) -> Float64[np.ndarray, "k k"]:
    """Each row as shares of its sum; an empty row stays zero."""
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-12)


def difference(one: Resampled, other: Resampled, metric: str = "balanced_accuracy") -> Difference:
    """How much better `one` is, resample by resample."""
    row = METRICS.index(metric)
    gap = one.values[row].mean(axis=0) - other.values[row].mean(axis=0)
    low, high = np.nanpercentile(gap[1:], [LOW, HIGH])
    return Difference(float(gap[0]), float(low), float(high))
