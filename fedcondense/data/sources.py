"""An image source → what became of each of its rows: an image, or a problem."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from fedcondense.config.site import ImageCsv, ImageFolder, ImageNpz, ImageSource, Phantoms
from fedcondense.config.study import ImageSpec
from fedcondense.data.archive import BATCH, read_archive
from fedcondense.data.cache import Arrays, Entry
from fedcondense.data.dataset import LabeledImages
from fedcondense.data.duplicates import Duplicates, find_duplicates
from fedcondense.data.folder import list_folder
from fedcondense.data.groups import (
    Grouping,
    first_of_patient,
    join_groups,
    named_apart,
    own_groups,
    own_patients,
    patients_of,
)
from fedcondense.data.listing import ImageFile, Listing
from fedcondense.data.patient_secret import patient_secret
from fedcondense.data.phantoms import draw_phantoms
from fedcondense.data.problems import Problem
from fedcondense.data.radiograph import fit
from fedcondense.data.reading import read_films
from fedcondense.data.table import list_csv
from fedcondense.progress import Step, Watch


@dataclass(frozen=True)
class Reading:
    """What became of a source's rows.

    Attributes:
        images: those that can be used; classes as the source or the study has them.
        files: their files; None where the source holds none (npz, phantoms).
        problems: what is wrong with the other rows.
        total: rows of both kinds.
        copies: which files are copies of one film; None where none were looked for.
        other_classes: see `Listing`.
    """

    images: LabeledImages = field(repr=False)
    files: tuple[ImageFile, ...] | None = field(default=None, repr=False)
    problems: tuple[Problem, ...] = ()
    total: int = 0
    copies: Duplicates | None = None
    other_classes: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Reader:
    """How sources are read: the form, who listens, where files are kept, what joins them."""

    spec: ImageSpec
    watch: Watch
    cache: Path | None = None
    grouping: Grouping = Grouping.COPIES

    def read(self, source: ImageSource, classes: tuple[str, ...] | None) -> Reading:
        """Read what can be read of `source`.

        Copies are looked for among image files alone: who writes an npz has the say over its
        groups, and simulated sites get theirs as npz.

        Raises:
            DataError: the source as a whole cannot be used.
        """
        if isinstance(source, ImageNpz):
            return _ready(read_archive(source.path, self.spec, self.watch, self.grouping))
        if isinstance(source, Phantoms):
            drawn = draw_phantoms(source, self.watch)
            fitted = [fit(part.float(), self.spec) for part in drawn.images.split(BATCH)]
            return _ready(replace(drawn, images=torch.cat(fitted)))
        if isinstance(source, ImageFolder):
            listing = list_folder(source.path, classes)
        else:
            listing = list_csv(source.path, source.root, classes)
        return self._read_files(source, listing)

    def _read_files(self, source: ImageFolder | ImageCsv, listing: Listing) -> Reading:
        entry = self._entry(source, listing)
        kept = None if entry is None else entry.read()
        if kept is not None:
            self.watch(Step("reading images", listing.total, listing.total))
            return self._reading(listing, listing.files, kept)
        films, files, problems = read_films(
            listing.files, self.spec, source.burned_in, self.watch, patient_secret(self.cache)
        )
        copies = find_duplicates(films.thumbnails, films.digests, self.watch)
        arrays = {
            "images": films.images.numpy(),
            "patients": films.patients,
            "copies": copies.joined,
            "counts": np.array([copies.exact, copies.near], np.int64),
        }
        # looked up again: files that changed while they were read are not kept
        if entry is not None and not problems and entry == self._entry(source, listing):
            entry.keep(arrays)
        return self._reading(listing, files, arrays, tuple(problems))

    def _entry(self, source: ImageFolder | ImageCsv, listing: Listing) -> Entry | None:
        """Where the files' content is kept; nowhere if a row is at fault before it is read."""
        if self.cache is None or listing.problems:
            return None
        form = [self.spec.model_dump(mode="json"), source.burned_in.value]
        return Entry.of(self.cache, listing.files, [source.kind, str(source.path.absolute())], form)

    def _reading(
        self,
        listing: Listing,
        files: tuple[ImageFile, ...],
        arrays: Arrays,
        problems: tuple[Problem, ...] = (),
    ) -> Reading:
        """Put pixels and row numbers together with what the source says of the files."""
        exact, near = arrays["counts"].tolist()
        copies = Duplicates(arrays["copies"], exact, near)
        groups, patients = self._units(files, arrays)
        number = {name: label for label, name in enumerate(listing.classes)}
        images = LabeledImages(
            torch.from_numpy(arrays["images"]),
            torch.tensor([number[file.class_name] for file in files], dtype=torch.int64),
            listing.classes,
            groups,
            _texts(file.site for file in files),
            _texts(file.split for file in files),
            patients,
        )
        return Reading(
            images,
            files,
            (*listing.problems, *problems),
            listing.total,
            copies,
            listing.other_classes,
        )

    def _units(
        self, files: tuple[ImageFile, ...], arrays: Arrays
    ) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
        """The group and the patient of each file."""
        keys = [bytes(key).hex() if key.any() else "" for key in arrays["patients"]]
        if self.grouping is Grouping.PATIENTS:
            return own_groups(files, keys), own_patients(files, keys)
        first, named = first_of_patient(keys), named_apart(files, keys)
        return join_groups(named, first, arrays["copies"]), patients_of(named, first)


def _ready(images: LabeledImages) -> Reading:
    return Reading(images, total=len(images))


def _texts(values: Iterable[str]) -> tuple[str, ...] | None:
    """A column; None where it says nothing."""
    column = tuple(values)
    return column if any(column) else None
