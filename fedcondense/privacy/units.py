"""Patient images by the unit that differential privacy hides, and which mechanisms read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from fedcondense.config.privacy import Unit
from fedcondense.errors import DataError


@dataclass(frozen=True)
class Sample:
    """Some units' images: their `rows`, and to which of `units` units each belongs.

    `owners` ascends from 0; a unit has at least one row.
    """

    rows: Int64[Tensor, " n"]
    owners: Int64[Tensor, " n"]
    units: int


@dataclass(frozen=True)
class Records:
    """What one mechanism sees: images, labels, and the unit of each row, from 0 to `units` - 1."""

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    owners: Int64[Tensor, " n"]
    units: int

    def poisson(self, q: float, most: int, secret: torch.Generator) -> Sample:
        """Every unit with probability `q`, on its own; of each at most `most` random images.

        Which images a unit gives is decided among its own alone, so that adding or removing a
        unit changes no other one's share.
        """
        # 53 random bits: with 24 a unit would come a little more often than it is charged for
        chosen = torch.rand(self.units, generator=secret, dtype=torch.float64) < q
        order = torch.rand(len(self.owners), generator=secret, dtype=torch.float64).argsort()
        order = order[self.owners[order].argsort(stable=True)]
        owners = self.owners[order]
        taken = chosen[owners] & (_ranks(owners, self.units) < most)
        found, numbers = owners[taken].unique_consecutive(return_inverse=True)
        return Sample(order[taken], numbers, len(found))


class UnitImages:
    """A site's training images by unit; every reading of them is by a named mechanism."""

    def __init__(
        self,
        images: UInt8[Tensor, "n c h w"],
        labels: Int64[Tensor, " n"],
        owners: Int64[Tensor, " n"],
        unit: Unit,
    ) -> None:
        self.unit = unit
        self._images, self._labels, self._owners = images, labels, owners
        self._readings: list[str] = []

    @classmethod
    def by_image(cls, images: UInt8[Tensor, "n c h w"], labels: Int64[Tensor, " n"]) -> UnitImages:
        """Every image is a unit."""
        return cls(images, labels, torch.arange(len(labels)), Unit.IMAGE)

    @classmethod
    def by_patient(
        cls,
        images: UInt8[Tensor, "n c h w"],
        labels: Int64[Tensor, " n"],
        patients: Sequence[str],
    ) -> UnitImages:
        """All images of a patient are a unit.

        Raises:
            DataError: an image has no patient id.
        """
        if not all(patients):
            raise DataError(
                "unit patient: an image has no patient id",
                hint='give every image its patient, or set privacy.unit = "image"',
            )
        numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
        owners = torch.tensor([numbers[patient] for patient in patients], dtype=torch.int64)
        return cls(images, labels, owners, Unit.PATIENT)

    @property
    def readings(self) -> Sequence[str]:
        """The mechanisms that have read patients, in order; it grows with every reading."""
        return self._readings

    def read(self, mechanism: str, *, labels: Sequence[int] | None = None) -> Records:
        """Hand the images to a charged mechanism, of the classes `labels` or of all.

        A class is left out image by image, so that one unit never decides of another.
        """
        self._readings.append(mechanism)
        if labels is None:
            rows = torch.arange(len(self._labels))
        else:
            rows = torch.isin(self._labels, torch.tensor(labels, dtype=torch.int64)).nonzero()[:, 0]
        found, owners = self._owners[rows].unique(return_inverse=True)
        return Records(self._images[rows], self._labels[rows], owners, len(found))


def split(sample: Sample, most: int) -> list[Sample]:
    """Parts whose units are whole and that have about `most` rows; nothing gives one empty part.

    A part has more rows than `most` only by less than its last unit has.
    """
    if sample.units == 0:
        return [sample]
    ends = torch.bincount(sample.owners, minlength=sample.units).cumsum(0)
    part_of_unit = (ends - 1) // most
    _, units = part_of_unit.unique_consecutive(return_counts=True)
    _, rows = part_of_unit[sample.owners].unique_consecutive(return_counts=True)
    return [
        Sample(r, o - o[0], n)
        for r, o, n in zip(
            sample.rows.split(rows.tolist()),
            sample.owners.split(rows.tolist()),
            units.tolist(),
            strict=True,
        )
    ]


def _ranks(owners: Int64[Tensor, " n"], units: int) -> Int64[Tensor, " n"]:
    """Place of each row among its unit's, where rows of a unit stand together."""
    counts = torch.bincount(owners, minlength=units)
    first = counts.cumsum(0) - counts
    return torch.arange(len(owners)) - first[owners]
