"""An image source → a site's images in the study's form."""

from __future__ import annotations

from dataclasses import replace

import torch

from fedcondense.config.site import ImageFolder, ImageNpz, ImageSource
from fedcondense.config.study import ImageSpec
from fedcondense.data.archive import BATCH, read_archive
from fedcondense.data.dataset import LabeledImages, group_members
from fedcondense.data.folder import read_folder
from fedcondense.data.phantoms import draw_phantoms
from fedcondense.data.radiograph import fit
from fedcondense.errors import DataError
from fedcondense.progress import Watch, silent


def load_images(
    source: ImageSource,
    spec: ImageSpec,
    *,
    classes: tuple[str, ...] | None = None,
    watch: Watch = silent,
) -> LabeledImages:
    """Read or draw all images of `source` in the form of `spec`.

    With `classes` (a study's), labels number these names; images of other classes are left out,
    and a class may have no image here. Without, the classes are the data's own that have images,
    in the data's order, and at least two are needed.

    Raises:
        DataError: the source cannot be used; one line says why and what to do.
    """
    if isinstance(source, ImageFolder):
        images = read_folder(source.path, spec, classes, watch)
    elif isinstance(source, ImageNpz):
        images = read_archive(source.path, spec, watch)
    else:
        drawn = draw_phantoms(source, watch)
        fitted = [fit(part.float(), spec) for part in drawn.images.split(BATCH)]
        images = replace(drawn, images=torch.cat(fitted))
    images = _own_classes(images) if classes is None else _with_classes(images, classes)
    _refuse_crossing_groups(images)
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
    if images.splits is None:
        return
    crossing = sum(
        {"train", "test"} <= {images.splits[row] for row in rows}
        for rows in group_members(images).values()
    )
    if crossing:
        raise DataError(
            f"{crossing} groups have images in both train and test",
            hint="put all images of a group (a patient) on one side of the split",
        )
