"""The global synthetic set as pictures by site and class, beside what each image started from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Shaped, UInt8
from markupsafe import Markup

from fedcondense.files.page import picture

SHOWN = 10  # of one class at one site: a page, not an archive

Pixels = UInt8[np.ndarray, "n c h w"]


@dataclass(frozen=True)
class SetPictures:
    """The global set of the first repetition as it travelled, and where each image began.

    `starts` are uint8 in the set's own scale, or floats in normalised units, of which
    [`lowest`, `highest`] is the range of uint8. `labels` number `classes`; `sites` names the site
    of each image.
    """

    images: Pixels
    starts: Shaped[np.ndarray, "n c h w"]
    labels: Int64[np.ndarray, " n"]
    sites: tuple[str, ...]
    classes: tuple[str, ...]
    lowest: float = -4.0
    highest: float = 4.0


@dataclass(frozen=True)
class Pair:
    """One image of the set beside its start."""

    start: Markup
    image: Markup


@dataclass(frozen=True)
class Strip:
    """The images of one class at one site: those shown, and how many there are."""

    class_name: str
    pairs: tuple[Pair, ...]
    images: int


@dataclass(frozen=True)
class SiteGallery:
    """The images of one site."""

    site: str
    strips: tuple[Strip, ...]


def galleries(pictures: SetPictures) -> list[SiteGallery]:
    """One gallery per site, in the set's order; one strip per class that the site sent."""
    starts = _as_travelled(pictures)
    window = _window(pictures.images)
    shown = _Shown(pictures, _brightened(pictures.images, window), _brightened(starts, window))
    return [SiteGallery(site, shown.strips(site)) for site in dict.fromkeys(pictures.sites)]


def _as_travelled(pictures: SetPictures) -> Pixels:
    """The starts in the scale of the set, clipped to its range as the set was."""
    if pictures.starts.dtype == np.uint8:
        return pictures.starts
    span = pictures.highest - pictures.lowest
    levels = np.rint((pictures.starts - pictures.lowest) * (255 / span))
    return np.clip(levels, 0, 255).astype(np.uint8)


def _window(images: Pixels) -> tuple[float, float]:
    """The grey levels between which the middle 99 % of the set's pixels lie."""
    if not images.size:
        return 0.0, 255.0
    low, high = np.percentile(images, [0.5, 99.5])
    return float(low), float(max(high, low + 1))


def _brightened(images: Pixels, window: tuple[float, float]) -> Pixels:
    low, high = window
    return np.clip((images - np.float64(low)) * (255 / (high - low)), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class _Shown:
    """Images and starts, ready for the screen."""

    pictures: SetPictures
    images: Pixels
    starts: Pixels

    def strips(self, site: str) -> tuple[Strip, ...]:
        here = np.array([name == site for name in self.pictures.sites])
        strips = (
            self._strip(site, label, np.flatnonzero(here & (self.pictures.labels == label)))
            for label in range(len(self.pictures.classes))
        )
        return tuple(strip for strip in strips if strip.images)

    def _strip(self, site: str, label: int, rows: Int64[np.ndarray, " m"]) -> Strip:
        name = self.pictures.classes[label]
        pairs = [
            Pair(
                start=picture(self.starts[row], f"start of image {i + 1}, {name}, {site}"),
                image=picture(self.images[row], f"synthetic image {i + 1}, {name}, {site}"),
            )
            for i, row in enumerate(rows[:SHOWN])
        ]
        return Strip(name, tuple(pairs), len(rows))
