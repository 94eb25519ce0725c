"""Which images never part: those of one patient, and copies of one film."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Int64
from numpy import ndarray

from fedcondense.data.listing import ImageFile


def join_groups(
    files: Sequence[ImageFile],
    same_patient: Int64[ndarray, " n"],
    same_film: Int64[ndarray, " n"],
) -> tuple[str, ...]:
    """A group for each file: what the source joins, what DICOM's patient ids join, and copies.

    `same_patient` and `same_film` give for each file the first that it belongs with (-1: unknown).
    A group is named as the source names that of its first file.
    """
    named: dict[str, int] = {}
    parent = list(range(len(files)))
    for row, file in enumerate(files):
        _join(parent, row, named.setdefault(file.group, row))
        for other in (same_patient[row], same_film[row]):
            if other >= 0:
                _join(parent, row, int(other))
    return tuple(files[_root(parent, row)].group for row in range(len(files)))


def patients_of(
    files: Sequence[ImageFile], same_patient: Int64[ndarray, " n"]
) -> tuple[str, ...] | None:
    """The patient of each file, "" where unknown; None where no file has one.

    The source's word comes first, also for other films with the same patient id in DICOM. A patient
    whom DICOM alone knows is named as the group of the first file, never by the id.
    """
    told: dict[int, str] = {}
    for file, first in zip(files, same_patient.tolist(), strict=True):
        if file.patient and first >= 0:
            told.setdefault(first, file.patient)
    patients = tuple(
        file.patient or told.get(first) or (files[first].group if first >= 0 else "")
        for file, first in zip(files, same_patient.tolist(), strict=True)
    )
    return patients if any(patients) else None


def _root(parent: list[int], row: int) -> int:
    while parent[row] != row:
        parent[row] = parent[parent[row]]
        row = parent[row]
    return row


def _join(parent: list[int], row: int, other: int) -> None:
    """Join two groups under the row that comes first."""
    first, second = sorted((_root(parent, row), _root(parent, other)))
    parent[second] = first
