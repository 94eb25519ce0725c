"""How a phantom scanner renders absorption as a film: its look, which says nothing of a class."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, UInt8

from fedcondense.data.anatomy import Plane

GLYPHS = {  # side markers, as technicians lay them on the cassette
    "R": ("1110", "1001", "1110", "1010", "1001"),
    "L": ("1000", "1000", "1000", "1000", "1111"),
}


@dataclass(frozen=True)
class Scanner:
    """The look of one hospital's films."""

    name: str
    exposure: float
    curve: float  # above 1 darkens the middle greys
    lift: float  # grey of unexposed film
    blur: float  # share of the side
    noise: float  # standard deviation of a grey value in [0, 1]
    margins: tuple[float, float, float, float]  # collimation: top, bottom, left, right
    marker: str
    marker_grey: float
    marker_height: float  # place from the top, share of the side


def draw_scanner(number: int, seed: int) -> Scanner:
    """Draw the look of scanner `number`, counted from 1."""
    rng = np.random.default_rng((seed, 1, number))
    return Scanner(
        name=f"scanner-{number}",
        exposure=rng.uniform(0.85, 1.25),
        curve=rng.uniform(0.75, 1.35),
        lift=rng.uniform(0.0, 0.10),
        blur=rng.uniform(0.003, 0.012),
        noise=rng.uniform(0.012, 0.035),
        margins=tuple(rng.choice((0.0, 0.0, 0.0, 0.04), 4)),
        marker=str(rng.choice(("R", "L", ""))),
        marker_grey=rng.uniform(0.75, 1.0),
        marker_height=rng.uniform(0.06, 0.16),
    )


def expose(
    absorption: Plane, scanner: Scanner, rng: np.random.Generator
) -> UInt8[np.ndarray, "h w"]:
    """One film: exposure, response curve, blur, noise, collimation, marker."""
    size = len(absorption)
    dose = scanner.exposure * rng.uniform(0.90, 1.10)
    light = 1 - np.exp(-1.05 * dose * np.clip(absorption, 0, None))
    grey = scanner.lift + (1 - scanner.lift) * light**scanner.curve
    kernel = _blur_matrix(size, round(scanner.blur * size, 3))
    grey = kernel @ grey @ kernel.T
    grey += scanner.noise * rng.standard_normal((size, size), dtype=np.float32)
    _lay_marker(grey, scanner, rng)
    _collimate(grey, scanner, rng)
    return np.clip(np.rint(255 * grey), 0, 255).astype(np.uint8)


@lru_cache(maxsize=64)
def _blur_matrix(size: int, pixels: float) -> Float32[np.ndarray, "size size"]:
    """Gaussian blur along one axis as a matrix; `pixels` is its standard deviation."""
    distance = np.arange(size)[:, None] - np.arange(size)
    weights = np.exp(-0.5 * (distance / max(pixels, 0.05)) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def _lay_marker(grey: Plane, scanner: Scanner, rng: np.random.Generator) -> None:
    if not scanner.marker:
        return
    size = len(grey)
    unit = max(1, round(size / 64))
    glyph = np.array([[cell == "1" for cell in row] for row in GLYPHS[scanner.marker]])
    glyph = glyph.repeat(unit, axis=0).repeat(unit, axis=1)
    height, width = glyph.shape
    top = int((scanner.marker_height + rng.uniform(0, 0.04)) * size)
    inset = int((0.07 + rng.uniform(0, 0.04)) * size)
    left = inset if scanner.marker == "R" else size - inset - width
    patch = grey[top : top + height, left : left + width]
    patch[glyph] = scanner.marker_grey


def _collimate(grey: Plane, scanner: Scanner, rng: np.random.Generator) -> None:
    """Black out the margins that the beam did not reach."""
    size = len(grey)
    reach = [round(m * rng.uniform(0.7, 1.3) * size) if m else 0 for m in scanner.margins]
    top, bottom, left, right = reach
    grey[:top] = grey[size - bottom :] = scanner.lift
    grey[:, :left] = grey[:, size - right :] = scanner.lift
