"""An image source → a site's images in the study's form, or one error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from fedcondense.config.site import ImageSource
from fedcondense.config.study import ImageSpec
from fedcondense.data.dataset import LabeledImages, crossing_groups, half_given_groups
from fedcondense.data.groups import Grouping
from fedcondense.data.problems import refusal
from fedcondense.data.sources import Reader
from fedcondense.errors import DataError
from fedcondense.progress import Watch, silent


def load_images(
    source: ImageSource,
    spec: ImageSpec,
    *,
    classes: tuple[str, ...] | None = None,
    watch: Watch = silent,
    cache: Path | None = None,
    grouping: Grouping = Grouping.COPIES,
) -> LabeledImages:
    """Read or draw all images of `source` in the form of `spec`.

    With `classes` (a study's), labels number these names; images of other classes are left out (in
    a CSV file they are an error), and a class may have no image here. Without, the classes are the
    data's own that have images, in the data's order, and at least two are needed.

    What was read of image files is kept in the folder `cache`, from where the next time reads it.
    Under differential privacy, `grouping` is to be `PATIENTS`.

    Raises:
        DataError: the source cannot be used; one line says why and what to do. It means images by
            their row numbers, and under `naming_files` by their files.
    """
    reading = Reader(spec, watch, cache, grouping).read(source, classes)
    if reading.problems:
        raise refusal(reading.problems, reading.total)
    images = reading.images
    images = _own_classes(images) if classes is None else _with_classes(images, classes)
    _refuse_crossing_groups(images)
    if grouping is Grouping.PATIENTS:
        _refuse_half_given_groups(images)
    return images


def _own_classes(images: LabeledImages) -> LabeledImages:
    counts = images.counts().tolist()
    present = tuple(name for name, n in zip(images.classes, counts, strict=True) if n)
    if len(present) < 2:
        raise DataError(
            f"images of one class only, {present[0]}",
            hint="a classifier needs at least two classes; see docs/ref-data.md for the form",
        )
    return _with_classes(images, present)


def _with_classes(images: LabeledImages, classes: tuple[str, ...]) -> LabeledImages:
    """Number the labels by `classes`; rows of other classes are left out."""
    number = {name: label for label, name in enumerate(classes)}
    new_labels = torch.tensor([number.get(name, -1) for name in images.classes])[images.labels]
    rows = (new_labels >= 0).nonzero().squeeze(1)
    if len(rows) == 0:
        raise DataError(
            f"no image of a class of the study; the data has {', '.join(images.classes)}",
            hint="class names must be spelled as in the study",
        )
    return replace(images.select(rows), labels=new_labels[rows], classes=classes)


def _refuse_crossing_groups(images: LabeledImages) -> None:
    if crossing := len(crossing_groups(images)):
        raise DataError(
            f"{crossing} groups have images in both train and test",
            hint="put all images of a group (a patient, or copies of one film) on one side of it",
        )


def _refuse_half_given_groups(images: LabeledImages) -> None:
    """An image that follows its group into the test set would do so for the sake of another."""
    if half_given := len(half_given_groups(images)):
        raise DataError(
            f"{half_given} groups have images in test and others that no split is given to",
            hint="under differential privacy give a split to all images of a group, or to none",
        )
