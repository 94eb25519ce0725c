"""What predictions are worth: metrics of weighted images, so that a bootstrap is a weighting.

Every metric takes `weights` (B, N): row b says how often image n counts in resample b. A row of
ones is the plain metric. Classes that a row does not hold are left out of its class means.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64, Int64

Probabilities = Float[np.ndarray, "n k"]
Labels = Int64[np.ndarray, " n"]
Weights = Float64[np.ndarray, "b n"]
Values = Float64[np.ndarray, " b"]

SPECIFICITY = 0.9
CALIBRATION_BINS = 10


def confusion(probabilities: Probabilities, labels: Labels, weights: Weights) -> np.ndarray:
    """Weighted counts (B, K, K): rows are the true class, columns the predicted one."""
    k = probabilities.shape[1]
    cell = labels * k + probabilities.argmax(axis=1)
    membership = np.zeros((len(labels), k * k))
    membership[np.arange(len(labels)), cell] = 1
    return (weights @ membership).reshape(-1, k, k)


def recalls(counts: np.ndarray) -> np.ndarray:
    """Share of each true class that is found (B, K); NaN where a class has no image."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.diagonal(counts, axis1=1, axis2=2) / counts.sum(axis=2)


def _mean_over_classes(values: np.ndarray) -> Values:
    """Mean of (B, K) over the classes that a row has; NaN where it has none."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(there, values, 0).sum(axis=1) / there.sum(axis=1)


def balanced_accuracy(counts: np.ndarray) -> Values:
    """Mean recall over the classes present, in [0, 1]; chance is one over their number."""
    return _mean_over_classes(recalls(counts))


def accuracy(counts: np.ndarray) -> Values:
    """Share of images whose class is found, in [0, 1]."""
    return np.trace(counts, axis1=1, axis2=2) / counts.sum(axis=(1, 2))


def macro_f1(counts: np.ndarray) -> Values:
    """Mean over the classes present of 2 TP / (2 TP + FP + FN)."""
    hits = np.diagonal(counts, axis1=1, axis2=2)
    true, predicted = counts.sum(axis=2), counts.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        score = 2 * hits / (true + predicted)
    return _mean_over_classes(np.where(true > 0, score, np.nan))


def ranking(
    probabilities: Probabilities, labels: Labels, weights: Weights
) -> tuple[Values, Values]:
    """Macro one-vs-rest AUROC, and sensitivity at 90 % specificity, each the mean over classes."""
    per_class = [
        _one_against_rest(probabilities[:, c], labels == c, weights)
        for c in range(probabilities.shape[1])
        if (labels == c).any()
    ]
    areas, sensitivities = (np.stack(values, axis=1) for values in zip(*per_class, strict=True))
    return _mean_over_classes(areas), _mean_over_classes(sensitivities)


def _one_against_rest(
    scores: np.ndarray, positive: np.ndarray, weights: Weights
) -> tuple[Values, Values]:
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # ties move together
    hits = np.cumsum(weights[:, order] * positive[order], axis=1)[:, ends]
    alarms = np.cumsum(weights[:, order] * ~positive[order], axis=1)[:, ends]
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity = np.pad(hits / hits[:, -1:], ((0, 0), (1, 0)))
        false_alarms = np.pad(alarms / alarms[:, -1:], ((0, 0), (1, 0)))
    area = np.trapezoid(sensitivity, false_alarms, axis=1)
    allowed = false_alarms <= 1 - SPECIFICITY + 1e-12
    return area, np.where(allowed, sensitivity, 0).max(axis=1)


def calibration_error(probabilities: Probabilities, labels: Labels, weights: Weights) -> Values:
    """Expected calibration error in [0, 1]: |confidence - accuracy| over ten equal-width bins.

    Guo et al. 2017, eq. 3.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    membership = np.eye(CALIBRATION_BINS)[bins]
    gap = (weights * (confidence - correct)) @ membership
    return np.abs(gap).sum(axis=1) / weights.sum(axis=1)


METRICS = (
    "balanced_accuracy",
    "accuracy",
    "macro_f1",
    "auroc",
    "sensitivity_at_90_specificity",
    "calibration_error",
)


def all_metrics(
    probabilities: Probabilities, labels: Labels, weights: Weights
) -> Float64[np.ndarray, "6 b"]:
    """Every one of `METRICS`, in their order."""
    counts = confusion(probabilities, labels, weights)
    area, sensitivity = ranking(probabilities, labels, weights)
    return np.stack(
        [
            balanced_accuracy(counts),
            accuracy(counts),
            macro_f1(counts),
            area,
            sensitivity,
            calibration_error(probabilities, labels, weights),
        ]
    )


def resampling_weights(groups: Sequence[str], resamples: int, seed: int) -> Weights:
    """How often each image counts when whole groups are drawn with replacement.

    The first row is all ones, the sample itself; `resamples` rows follow.
    """
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    n = int(member.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
    return np.concatenate([np.ones((1, len(groups))), drawn[:, member].astype(float)])
