"""The chest of one phantom patient, and what a film of it absorbs before any finding.

Lengths are in half image sides: x runs from -1 (the viewer's left, the patient's right) to 1,
y from -1 (neck) to 1 (abdomen). Absorption has no unit; 0 is air.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float32

Plane = Float32[np.ndarray, "h w"]


@dataclass(frozen=True)
class Anatomy:
    """What stays the same in every film of one patient."""

    girth: float  # absorption of the trunk
    width: float  # of the trunk
    lung_top: float
    lung_bottom: float
    lung_width: float
    gap: float  # from the midline to each lung
    dome: float  # height of the diaphragm
    heart: float  # radius
    heart_lean: float
    rib_spacing: float
    rib_phase: float
    rib_slope: float
    rib_density: float
    clavicle: float  # height
    bend: float  # of the spine
    aorta: float
    breast: float
    bubble: float  # air in the stomach
    vessels: float  # strength of the vascular markings
    vessel_phases: tuple[float, ...]


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw one patient."""
    return Anatomy(
        girth=rng.uniform(0.85, 1.25),
        width=rng.uniform(0.84, 0.96),
        lung_top=rng.uniform(-0.78, -0.66),
        lung_bottom=rng.uniform(0.42, 0.66),
        lung_width=rng.uniform(0.54, 0.64),
        gap=rng.uniform(0.10, 0.16),
        dome=rng.uniform(0.10, 0.24),
        heart=rng.uniform(0.24, 0.36),
        heart_lean=rng.uniform(0.06, 0.18),
        rib_spacing=rng.uniform(0.15, 0.19),
        rib_phase=rng.uniform(0, 1),
        rib_slope=rng.uniform(0.5, 0.9),
        rib_density=rng.uniform(0.07, 0.15),
        clavicle=rng.uniform(-0.64, -0.52),
        bend=rng.uniform(-0.05, 0.05),
        aorta=rng.uniform(0.05, 0.11),
        breast=max(0.0, rng.uniform(-0.20, 0.20)),
        bubble=max(0.0, rng.uniform(-0.15, 0.35)),
        vessels=rng.uniform(0.5, 1.3),
        vessel_phases=tuple(rng.uniform(0, 2 * np.pi, 10)),
    )


@dataclass(frozen=True)
class Frame:
    """Where each pixel of one film lies in the patient."""

    x: Plane
    y: Plane
    pixel: float  # side of a pixel

    @property
    def edge(self) -> float:
        """Softness of an outline: about a pixel, so that edges are antialiased."""
        return max(0.6 * self.pixel, 0.008)


def draw_frame(rng: np.random.Generator, size: int) -> Frame:
    """Position a patient anew: shift, turn, distance, and a slight warp."""
    axis = ((np.arange(size) + 0.5) * 2 / size - 1).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    angle, scale = np.radians(rng.uniform(-4, 4)), rng.uniform(0.92, 1.06)
    sine, cosine = np.sin(angle) * scale, np.cos(angle) * scale
    left, down = rng.uniform(-0.06, 0.06, 2)
    warp = 0.03
    return Frame(
        (cosine * x - sine * y + left + warp * smooth_noise(rng, size, 4)).astype(np.float32),
        (sine * x + cosine * y + down + warp * smooth_noise(rng, size, 4)).astype(np.float32),
        2 / size,
    )


def soft(distance: Plane, edge: float) -> Plane:
    """1 inside (positive distance), 0 outside, with a smooth edge."""
    return np.asarray(1 / (1 + np.exp(np.clip(-distance / edge, -30, 30))), dtype=np.float32)


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Plane:
    """Noise with about `cells` bumps a side and a standard deviation near 0.6."""
    grid = rng.standard_normal((cells + 1, cells + 1)).astype(np.float32)
    weights = _interpolation(size, cells)
    return weights @ grid @ weights.T


@lru_cache(maxsize=64)
def _interpolation(size: int, cells: int) -> Float32[np.ndarray, "size nodes"]:
    """Weights of the nodes in each pixel, easing in and out between neighbours."""
    position = (np.arange(size) + 0.5) * cells / size
    node = position.astype(int)
    part = position - node
    eased = part * part * (3 - 2 * part)
    weights = np.zeros((size, cells + 1), dtype=np.float32)
    weights[np.arange(size), node] = 1 - eased
    weights[np.arange(size), node + 1] = eased
    return weights


@dataclass(frozen=True)
class Lung:
    """One lung in one film.

    `lateral` and `height` are each pixel's place in it, 0 at the mediastinum and the apex, 1 at
    the ribs and the base; `hilum_distance` is its distance from where the vessels enter.
    """

    mask: Plane
    lateral: Plane
    height: Plane
    hilum_distance: Plane
    hilum_angle: Plane


def draw_lung(anatomy: Anatomy, frame: Frame, side: int) -> Lung:
    """The lung on the viewer's left (`side` -1) or right (1)."""
    outward = side * (frame.x - _midline(anatomy, frame))
    bottom = anatomy.lung_bottom + 0.05 * side  # the liver pushes the patient's right side up
    height = (frame.y - anatomy.lung_top) / (bottom - anatomy.lung_top)
    inside = np.clip(height, 0, 1)
    bulge = np.sqrt(1 - (1 - inside) ** 2.6)
    inner = anatomy.gap + 0.12 * (1 - inside) ** 3
    outer = anatomy.gap + 0.14 + (anatomy.lung_width - 0.14) * bulge
    middle = anatomy.gap + 0.45 * anatomy.lung_width
    arch = 1 - ((outward - middle) / (0.6 * anatomy.lung_width)) ** 2
    floor = bottom + 0.08 - anatomy.dome * np.clip(arch, -1, 1)
    within = np.minimum(np.minimum(outer - outward, outward - inner), floor - frame.y)
    mask = soft(np.minimum(within, frame.y - anatomy.lung_top), frame.edge)
    across, down = outward - anatomy.gap - 0.06, frame.y - 0.02
    return Lung(
        mask,
        (outward - inner) / (outer - inner),
        height,
        np.hypot(across, down),
        np.arctan2(down, across),
    )


def _midline(anatomy: Anatomy, frame: Frame) -> Plane:
    return np.asarray(anatomy.bend * np.sin(2.2 * frame.y), dtype=np.float32)


def draw_absorption(anatomy: Anatomy, frame: Frame, lungs: tuple[Lung, Lung]) -> Plane:
    """What a healthy chest absorbs."""
    x = frame.x - _midline(anatomy, frame)
    trunk = _trunk(anatomy, x, frame)
    air = lungs[0].mask + lungs[1].mask
    absorption = trunk * (1 - 0.66 * air)
    absorption += _middle(anatomy, x, frame) + _bones(anatomy, np.abs(x), frame) * (trunk > 0.05)
    absorption += air * _soft_shadows(anatomy, np.abs(x), frame)
    absorption -= anatomy.bubble * _ellipse(x - 0.36, frame.y - anatomy.lung_bottom - 0.2, 0.2, 0.1)
    for lung, phases in zip(
        lungs, (anatomy.vessel_phases[:5], anatomy.vessel_phases[5:]), strict=True
    ):
        absorption += anatomy.vessels * lung.mask * vessel_pattern(lung, phases)
    return np.asarray(absorption, dtype=np.float32)


def _ellipse(x: Plane, y: Plane, width: float, height: float) -> Plane:
    """1 at the centre of a cushion without an edge, near 0 from its radii on."""
    return np.asarray(np.exp(-2 * ((x / width) ** 2 + (y / height) ** 2) ** 2), dtype=np.float32)


def _trunk(anatomy: Anatomy, x: Plane, frame: Frame) -> Plane:
    y = frame.y
    shoulder = soft(y + 0.80, 0.045)
    armpit = soft(y + 0.22, 0.09)
    half = 0.24 + (anatomy.width - 0.10) * shoulder - 0.12 * armpit + 0.03 * y
    roundness = np.sqrt(np.clip(1 - (x / half) ** 2, 0, 1))
    belly = 1 + 0.25 * soft(y - anatomy.lung_bottom, 0.12)
    return np.asarray(anatomy.girth * roundness * belly, dtype=np.float32)


def _middle(anatomy: Anatomy, x: Plane, frame: Frame) -> Plane:
    """Mediastinum, spine, heart, aorta, and the dark windpipe."""
    y = frame.y
    mediastinum = 0.30 * soft(anatomy.gap + 0.02 - np.abs(x), 0.03) * soft(y + 0.62, 0.1)
    vertebrae = 1 + 0.25 * np.cos(2 * np.pi * y / 0.13)
    spine = 0.30 * np.exp(-((x / 0.085) ** 2)) * vertebrae
    r = anatomy.heart
    hx, hy = x - anatomy.heart_lean, y - (anatomy.lung_bottom - 0.75 * r)
    along, across = 0.86 * hx + 0.5 * hy, 0.86 * hy - 0.5 * hx
    radius = np.hypot(along / 1.15, across / 0.9)
    heart = 0.62 * soft(r - radius, 1.6 * frame.edge) * (0.75 + 0.25 * np.exp(-((radius / r) ** 2)))
    knob = 0.35 * soft(anatomy.aorta - np.hypot(x - anatomy.gap, y + 0.28), 2 * frame.edge)
    windpipe = 0.28 * np.exp(-((x / 0.055) ** 2)) * soft(-0.18 - y, 0.06)
    return np.asarray(mediastinum + spine + heart + knob - windpipe, dtype=np.float32)


def _bones(anatomy: Anatomy, r: Plane, frame: Frame) -> Plane:
    """Ribs (rear ones falling outwards, front ones inwards), collar bones, shoulder blades."""
    y, spacing = frame.y, anatomy.rib_spacing
    cage = soft(anatomy.gap + anatomy.lung_width + 0.05 - r, 0.02)
    cage *= soft(y - anatomy.lung_top, 0.05) * soft(anatomy.lung_bottom + 0.1 - y, 0.08)
    rear = _rib(np.cos(2 * np.pi * ((y - anatomy.rib_slope * r * r) / spacing + anatomy.rib_phase)))
    front = _rib(np.cos(2 * np.pi * ((y + 0.6 * r) / (1.15 * spacing) + anatomy.rib_phase)))
    front *= soft(r - 0.3, 0.05)
    line = anatomy.clavicle - 0.16 * (r - 0.1) + 0.05 * np.sin(7 * r)
    clavicle = soft(0.03 - np.abs(y - line), frame.edge) * soft(r - 0.06, 0.015)
    blade = _ellipse(r - 0.80 + 0.25 * y, y + 0.30, 0.14, 0.36)
    bones = anatomy.rib_density * cage * (rear + 0.55 * front) + 0.17 * clavicle + 0.14 * blade
    return np.asarray(bones, dtype=np.float32)


def _rib(wave: Plane) -> Plane:
    """A bar where the wave is high, with a denser rim."""
    return np.asarray(soft(wave - 0.45, 0.12) + 0.5 * np.exp(-(((wave - 0.5) / 0.2) ** 2)))


def _soft_shadows(anatomy: Anatomy, r: Plane, frame: Frame) -> Plane:
    """Breasts, or the chest muscles that look like them."""
    return anatomy.breast * _ellipse(r - 0.42, frame.y - anatomy.lung_bottom + 0.22, 0.34, 0.30)


def vessel_pattern(lung: Lung, phases: tuple[float, ...]) -> Plane:
    """Branches that leave the hilum and thin out, and the knot they leave from."""
    angle, r = lung.hilum_angle, lung.hilum_distance
    waves = sum(
        np.cos(count * angle + phase + twist * r)
        for count, twist, phase in zip((5, 9, 13, 19, 27), (3, -5, 8, -11, 6), phases, strict=True)
    )
    branches = 0.09 * np.clip(waves - 0.4, 0, 2) * np.exp(-r / 0.3) * soft(r - 0.05, 0.02)
    knot = 0.16 * np.exp(-((r / 0.13) ** 2))
    return np.asarray(branches + knot, dtype=np.float32)
