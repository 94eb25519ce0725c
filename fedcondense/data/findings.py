"""What each class of phantom shows in the lungs, as absorption added to a healthy chest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fedcondense.data.anatomy import Lung, Plane, smooth_noise, soft, vessel_pattern

Lungs = tuple[Lung, Lung]
Painter = Callable[["Finding", Lungs, np.random.Generator], Plane]


@dataclass(frozen=True)
class Finding:
    """One patient's finding: what it is, how strong (0 to 1), and the seed of its shape.

    The seed makes all films of a patient show the same finding.
    """

    name: str
    severity: float
    seed: tuple[int, ...]


def draw_finding(name: str, rng: np.random.Generator, seed: tuple[int, ...]) -> Finding:
    """Draw how severe a patient's finding is; many are slight, as in a ward."""
    return Finding(name, float(rng.beta(*SEVERITY)), seed)


def paint_finding(finding: Finding, lungs: Lungs) -> Plane:
    """Absorption that the finding, and what every lung may carry by chance, adds to a film."""
    rng = np.random.default_rng(finding.seed)
    return chance_marks(lungs, rng) + PAINTERS[finding.name](finding, lungs, rng)


SEVERITY = (2.5, 1.4)  # of a beta distribution: from hardly visible to plain


def chance_marks(lungs: Lungs, rng: np.random.Generator) -> Plane:
    """What any class can show: haze, crowded vessels, a scar, a nodule."""
    size = len(lungs[0].mask)
    air = lungs[0].mask + lungs[1].mask
    marks = air * 0.05 * (smooth_noise(rng, size, 7) + smooth_noise(rng, size, 3))
    marks += air * 0.04 * smooth_noise(rng, size, 24)
    for lung in lungs:
        marks += lung.mask * rng.uniform(0, 0.5) * vessel_pattern(lung, _phases(rng))
        lateral, height = rng.uniform(0.15, 0.85), rng.uniform(0.15, 0.9)
        strength = 0.25 * max(0.0, rng.uniform(-1, 1))
        blob = _blob(lung, lateral, height, rng.uniform(0.03, 0.08))
        marks += lung.mask * strength * np.exp(-blob)
    return np.asarray(marks, dtype=np.float32)


def _phases(rng: np.random.Generator) -> tuple[float, ...]:
    return tuple(rng.uniform(0, 2 * np.pi, 5))


def _blob(lung: Lung, lateral: float, height: float, radius: float) -> Plane:
    """Squared distance from a place in the lung, in units of `radius` (a share of its height)."""
    across = (lung.lateral - lateral) * 0.45
    return np.asarray((across**2 + (lung.height - height) ** 2) / radius**2, dtype=np.float32)


def _no_finding(finding: Finding, lungs: Lungs, rng: np.random.Generator) -> Plane:
    return np.zeros_like(lungs[0].mask)


def _ground_glass(finding: Finding, lungs: Lungs, rng: np.random.Generator) -> Plane:
    """COVID: several faint patches in both lungs, along the ribs and towards the base."""
    size = len(lungs[0].mask)
    veil = np.zeros_like(lungs[0].mask)
    grain = 1 + 0.6 * smooth_noise(rng, size, 20) + 0.5 * smooth_noise(rng, size, 9)
    for lung in lungs:
        for _ in range(rng.integers(2, 5)):
            place = rng.uniform(0.66, 1.0), rng.uniform(0.35, 0.98)
            blob = _blob(lung, *place, rng.uniform(0.09, 0.17))
            veil = np.maximum(veil, rng.uniform(0.6, 1) * lung.mask * np.exp(-(blob**1.5) / 2))
    return (0.15 + 0.38 * finding.severity) * veil * np.clip(grain, 0, None)


def _consolidation(finding: Finding, lungs: Lungs, rng: np.random.Generator) -> Plane:
    """Lung opacity: one dense focus with an irregular border, in one lung."""
    lung = lungs[rng.integers(2)]
    size = len(lung.mask)
    place = rng.uniform(0.2, 0.85), rng.uniform(0.2, 0.9)
    distance = np.sqrt(_blob(lung, *place, rng.uniform(0.13, 0.22)))
    border = distance + 0.25 * smooth_noise(rng, size, 8)
    return (0.26 + 0.52 * finding.severity) * lung.mask * soft(1 - border, 0.15)


def _interstitial(finding: Finding, lungs: Lungs, rng: np.random.Generator) -> Plane:
    """Viral pneumonia: a net of fine lines in both lungs, densest around the hila."""
    size = len(lungs[0].mask)
    net = np.abs(smooth_noise(rng, size, 16)) + np.abs(smooth_noise(rng, size, 26))
    lines = np.clip(0.8 - net, 0, None)
    veil = np.zeros_like(lungs[0].mask)
    for lung in lungs:
        near = 0.25 + np.exp(-((lung.hilum_distance / 0.34) ** 2))
        streaks = 2.2 * vessel_pattern(lung, _phases(rng))
        veil += lung.mask * (near * (lines + 0.25) + streaks)
    return (0.14 + 0.44 * finding.severity) * veil


PAINTERS: dict[str, Painter] = {
    "COVID": _ground_glass,
    "Lung_Opacity": _consolidation,
    "Normal": _no_finding,
    "Viral_Pneumonia": _interstitial,
}
