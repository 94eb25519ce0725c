"""The local index: which image files a source lists, row by row, before any is opened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fedcondense.data.problems import Problem


@dataclass(frozen=True)
class ImageFile:
    """One row of the local index.

    Attributes:
        row: row number, from 1 (see `Problem.row`).
        path: where the file is.
        name: its name within the source.
        class_name: its class.
        group: what the source alone says it belongs with: a patient, or the file itself.
        patient: the patient that the source names; empty where it names none.
        site: where the source says the image comes from.
        split: "train", "test", or "" where the source leaves it open.
    """

    row: int
    path: Path = field(repr=False)
    name: str = field(repr=False)
    class_name: str = field(repr=False)
    group: str = field(repr=False)
    patient: str = field(default="", repr=False)
    site: str = field(default="", repr=False)
    split: str = ""


@dataclass(frozen=True)
class Listing:
    """All rows of a source.

    Attributes:
        files: the rows that can be looked at.
        classes: the study's, or else those that the source names.
        problems: rows that cannot, known before a file is opened.
        other_classes: folders with images that are named like no class asked for, and not listed.
    """

    files: tuple[ImageFile, ...] = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    problems: tuple[Problem, ...] = ()
    other_classes: tuple[str, ...] = field(default=(), repr=False)

    @property
    def total(self) -> int:
        """Rows of both kinds."""
        return len(self.files) + len({problem.row for problem in self.problems})


def sorted_names(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in the order that a source without one gets: by letter, capital or not."""
    return tuple(sorted(set(names), key=lambda name: (name.casefold(), name)))
