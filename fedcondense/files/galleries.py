"""A global synthetic set as pictures by site and class, beside its starts where they are known."""

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
    """A global set as it travelled, and where each image began; a server never sees that: None.

    `starts` are uint8 in the set's own scale, or floats in normalised units, of which
    [`lowest`, `highest`] is the range of uint8. `labels` number `classes`; `sites` names the site
    of each image.
    """

    images: Pixels
    starts: Shaped[np.ndarray, "n c h w"] | None
    labels: Int64[np.ndarray, " n"]
    sites: tuple[str, ...]
    classes: tuple[str, ...]
    lowest: float = -4.0
    highest: float = 4.0


@dataclass(frozen=True)
class Pair:
    """One image of the set, beside its start if that is known."""

    start: Markup | None
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
    bright = None if starts is None else _brightened(starts, window)
    shown = _Shown(pictures, _brightened(pictures.images, window), bright)
    return [SiteGallery(site, shown.strips(site)) for site in dict.fromkeys(pictures.sites)]


def _as_travelled(pictures: SetPictures) -> Pixels | None:
    """The starts in the scale of the set, clipped to its range as the set was."""
    starts = pictures.starts
    if starts is None or starts.dtype == np.uint8:
        return starts
    span = pictures.highest - pictures.lowest
    levels = np.rint((starts - pictures.lowest) * (255 / span))
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
    starts: Pixels | None

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
                start=self._start(int(row), f"start of image {i + 1}, {name}, {site}"),
                image=picture(self.images[row], f"synthetic image {i + 1}, {name}, {site}"),
            )
            for i, row in enumerate(rows[:SHOWN])
        ]
        return Strip(name, tuple(pairs), len(rows))

    def _start(self, row: int, description: str) -> Markup | None:
        return None if self.starts is None else picture(self.starts[row], description)
