"""Which images never part: those of one patient, and copies of one film.

There are two ways to name what an image belongs to. By `Grouping.COPIES` images are joined, and
a group bears the name of its first: one image more can join or rename others. A filter under
differential privacy must read nothing but a record itself, and so by `Grouping.PATIENTS` the name
of an image's group follows from that image alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum

import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray

from fedcondense.data.listing import ImageFile
from fedcondense.errors import DataError

UNKNOWN = -1


class Grouping(StrEnum):
    """What joins image files to groups: the patient and copies of a film, or the patient alone.

    A study with differential privacy wants the latter: whether two images are copies is no
    property of one record, and a split by such groups would let one patient move others.
    """

    COPIES = "copies"
    PATIENTS = "patients"


def image_name(pixels: UInt8[ndarray, ...], class_name: str, split: str) -> str:
    """The group of an image of which nothing is known: equal images of a class share it.

    Those on the two sides of a `split` that the data gives do not: it is law, also for copies.
    """
    digest = hashlib.sha256(f"{pixels.shape}/{class_name}/{split}/".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return f"image-{digest.hexdigest()}"


def own_groups(files: Sequence[ImageFile], keys: Sequence[str]) -> tuple[str, ...]:
    """The group of each file by what the file alone says: its patient, or else itself.

    `keys` are those of the patients whom DICOM names, "" for nobody.

    Raises:
        DataError: a patient would fall apart: the source names some of the films that DICOM says
            are of one patient, and not the others.
    """
    refuse_partly_named(keys, [file.patient for file in files], what="patient_id")
    return tuple(file.group for file in named_apart(files, keys))


def own_patients(files: Sequence[ImageFile], keys: Sequence[str]) -> tuple[str, ...] | None:
    """The patient of each file by what the file alone says, "" unknown; None where no file says.

    Raises:
        DataError: see `own_groups`.
    """
    refuse_partly_named(keys, [file.patient for file in files], what="patient_id")
    pairs = zip(files, keys, strict=True)
    patients = tuple(file.patient or (_name(key) if key else "") for file, key in pairs)
    return patients if any(patients) else None


def named_apart(files: Sequence[ImageFile], keys: Sequence[str]) -> tuple[ImageFile, ...]:
    """The files, each with the group that it names alone; a patient of DICOM by the key.

    Both ways of grouping begin with these names: so a patient who has no copies of another's films
    is held out in all studies or in none.
    """
    return tuple(
        replace(file, group=_name(key)) if key and not file.patient else file
        for file, key in zip(files, keys, strict=True)
    )


def _name(key: str) -> str:
    return f"dicom-{key}"


def refuse_partly_named(patients: Sequence[str], names: Sequence[str], *, what: str) -> None:
    """Refuse a patient who has a name on some images and none on others ("" in `names`).

    To give all images the name that some have would let one image name another.

    Raises:
        DataError: tells how many patients.
    """
    with_name = {patient for patient, name in zip(patients, names, strict=True) if patient and name}
    without = {p for p, name in zip(patients, names, strict=True) if p and not name}
    if torn := len(with_name & without):
        raise DataError(
            f"{torn} patients have a {what} on some of their images and none on others",
            hint=f"under differential privacy give {what} to all images of a patient, or to none",
        )


def first_of_patient(keys: Sequence[str]) -> Int64[ndarray, " n"]:
    """The first file whose DICOM names the same patient; -1 where it names none."""
    first: dict[str, int] = {}
    rows = [first.setdefault(key, row) if key else UNKNOWN for row, key in enumerate(keys)]
    return np.array(rows, np.int64)


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
    whom DICOM alone knows is named as the group of the first file (see `named_apart`).
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
