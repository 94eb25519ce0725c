"""Stored DICOM values → grey in [0, 255]: one table over all values that the bits can hold.

DICOM PS3.3: stored values pass the modality transform (C.11.1), then the values of interest (VOI,
C.11.2), and are shown as MONOCHROME2 (0 is black) or MONOCHROME1 (0 is white, C.7.6.3.1.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8, UInt16

WHITE = 255.0
TAILS = (0.5, 99.5)  # percentiles shown as black and white where the file names no window

Table = Float64[np.ndarray, " values"]
Codes = UInt8[np.ndarray, "rows columns"] | UInt16[np.ndarray, "rows columns"]


class WindowShape(StrEnum):
    """`VOILUTFunction` (0028,1056)."""

    LINEAR = "LINEAR"
    LINEAR_EXACT = "LINEAR_EXACT"
    SIGMOID = "SIGMOID"


@dataclass(frozen=True)
class Window:
    """Centre and width, in units after the modality transform."""

    centre: float
    width: float
    shape: WindowShape = WindowShape.LINEAR

    def usable(self) -> bool:
        """Whether PS3.3 C.11.2.1.2 and C.11.2.1.3 allow it."""
        least = 1.0 if self.shape is WindowShape.LINEAR else np.finfo(np.float64).tiny
        return bool(np.isfinite([self.centre, self.width]).all()) and self.width >= least

    def apply(self, values: Table) -> Table:
        """Grey in [0, 1] (PS3.3 C.11.2.1.2.1, C.11.2.1.3.1, C.11.2.1.3.2)."""
        if self.shape is WindowShape.SIGMOID:
            slope = np.clip(-4 * (values - self.centre) / self.width, -700, 700)
            return np.asarray(1 / (1 + np.exp(slope)))
        centre, width = self.centre, self.width
        if self.shape is WindowShape.LINEAR:
            centre, width = centre - 0.5, width - 1
        if width == 0:
            return (values > centre).astype(np.float64)
        return np.asarray(np.clip((values - centre) / width + 0.5, 0, 1))


@dataclass(frozen=True)
class LookUp:
    """A look-up table: entry 0 is for `first` and everything below, the last for all above."""

    first: int
    entries: Table

    def apply(self, values: Table) -> Table:
        """The entries of `values`, rounded to whole numbers."""
        place = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        return self.entries[place.astype(np.int64)]


@dataclass(frozen=True)
class Rendering:
    """How a file says its stored values are shown.

    Attributes:
        bits: of a stored value, 8 to 16.
        is_signed: stored values are two's complement.
        modality: the modality transform, a table or (slope, intercept).
        voi: values of interest: a table with entries in [0, 1], a window, or nothing.
        is_negative: MONOCHROME1, where the lowest value is white.
        padding: stored values (low, high) that stand for no tissue; they count for no percentile.
    """

    bits: int
    is_signed: bool = False
    modality: LookUp | tuple[float, float] = (1.0, 0.0)
    voi: LookUp | Window | None = None
    is_negative: bool = False
    padding: tuple[int, int] | None = None


def render(codes: Codes, how: Rendering) -> Float32[np.ndarray, "rows columns"]:
    """Grey in [0, 255] of raw bit patterns; bits above `how.bits` are ignored.

    The first of these that the file has and that shows more than one grey decides: the VOI table,
    the window, the values as they are (8 bits, unsigned, no modality transform), the range between
    the percentiles `TAILS` of this film, which make one single value black, or white if negative.
    """
    codes = codes & codes.dtype.type(2**how.bits - 1)
    values = _modality_values(how)
    if isinstance(how.voi, LookUp) or (how.voi is not None and how.voi.usable()):
        grey = _grey(how.voi.apply(values), how)[codes]
        if grey.min() < grey.max():
            return grey
    if how.bits == 8 and not how.is_signed and how.modality == (1.0, 0.0):
        return _grey(values / WHITE, how)[codes]
    counts = np.bincount(codes.ravel(), minlength=2**how.bits)
    return _grey(_stretched(values, _tissue(counts, how)), how)[codes]


def _grey(shown: Table, how: Rendering) -> Float32[np.ndarray, " values"]:
    return (WHITE * (1 - shown if how.is_negative else shown)).astype(np.float32)


def stored_values(bits: int, *, is_signed: bool) -> Int64[np.ndarray, " values"]:
    """The number that each bit pattern of so many bits means."""
    values = np.arange(2**bits)
    if is_signed:
        values[2 ** (bits - 1) :] -= 2**bits
    return values


def _modality_values(how: Rendering) -> Table:
    values = stored_values(how.bits, is_signed=how.is_signed).astype(np.float64)
    if isinstance(how.modality, LookUp):
        return how.modality.apply(values)
    slope, intercept = how.modality
    return values * slope + intercept


def _tissue(counts: Int64[np.ndarray, " values"], how: Rendering) -> Int64[np.ndarray, " values"]:
    """The counts without padding, unless nothing else is there."""
    if how.padding is None:
        return counts
    low, high = how.padding
    stored = stored_values(how.bits, is_signed=how.is_signed)
    tissue = np.where((stored >= low) & (stored <= high), 0, counts)
    return tissue if tissue.any() else counts


def _stretched(values: Table, counts: Int64[np.ndarray, " values"]) -> Table:
    """Grey in [0, 1], linear between the percentiles `TAILS` of the counted values."""
    order = np.argsort(values, kind="stable")
    below = counts[order].cumsum()
    ends = [np.searchsorted(below, share / 100 * below[-1], side="right") for share in TAILS]
    low, high = values[order][np.minimum(ends, len(values) - 1)]
    if low == high:
        present = values[counts > 0]
        low, high = present.min(), present.max()
    if low == high:
        return np.zeros_like(values)
    return np.asarray(np.clip((values - low) / (high - low), 0, 1))
