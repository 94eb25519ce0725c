"""Images in a folder of class folders, such as the COVID-19 Radiography Database unpacks to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from fedcondense.config.study import ImageSpec
from fedcondense.data.dataset import LabeledImages
from fedcondense.data.radiograph import read_radiograph
from fedcondense.errors import DataError, ImageError
from fedcondense.progress import Step, Watch

# what a person takes for an image: those we cannot read are then refused, never skipped
IMAGE_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".jp2", ".dcm", ".dicom")
)
INNER_FOLDER = "images"
SKIPPED_FOLDERS = frozenset({"masks"})  # lung outlines lie beside the images
SPLITS = ("train", "test")
NAMED = 3  # unreadable files named in an error


@dataclass(frozen=True)
class _ImageFile:
    path: Path
    class_name: str
    split: str

    @property
    def group(self) -> str:
        """Folders say nothing of patients: each file name is a group of its own."""
        return "/".join(part for part in (self.split, self.class_name, self.path.stem) if part)


def read_folder(
    path: Path, spec: ImageSpec, classes: tuple[str, ...] | None, watch: Watch
) -> LabeledImages:
    """Read `<class>/*` and `<class>/images/*`, or two such trees under `train` and `test`.

    Classes are the folders that hold images, sorted without regard to case, or `classes`, whose
    folders alone are then read.

    Raises:
        DataError: no images are there, or some cannot be read; the message names the first three.
    """
    try:
        files = [f for f in _image_files(path) if classes is None or f.class_name in classes]
    except OSError as error:
        raise DataError(
            f"{path.name}: {(error.strerror or 'unreadable').lower()}",
            hint="give a folder of class folders that this user can read",
        ) from None
    found = {file.class_name for file in files}
    classes = classes or tuple(sorted(found, key=lambda name: (name.casefold(), name)))
    files.sort(key=lambda file: (classes.index(file.class_name), file.split, file.path))
    if not files:
        raise DataError(
            f"{path.name}: no images of any class",
            hint="expected <class>/*.png or <class>/images/*.png; see docs/ref-data.md",
        )
    return LabeledImages(
        _read_all(files, spec, watch),
        torch.tensor([classes.index(file.class_name) for file in files]),
        classes,
        tuple(file.group for file in files),
        None,
        tuple(file.split for file in files) if files[0].split else None,
    )


def _image_files(path: Path) -> Iterator[_ImageFile]:
    folders = _folders(path)
    is_split = bool(folders) and {folder.name for folder in folders} <= set(SPLITS)
    for tree in folders if is_split else [path]:
        for folder in _folders(tree):
            for file in _files_of_class(folder):
                yield _ImageFile(file, folder.name, tree.name if is_split else "")


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _files_of_class(folder: Path) -> list[Path]:
    files = _images_in(folder)
    for inner in _folders(folder):
        if inner.name == INNER_FOLDER:
            files += _images_in(inner)
        elif inner.name not in SKIPPED_FOLDERS and _images_in(inner):
            raise DataError(
                f"{folder.name}/{inner.name}: images in a folder that is not read",
                hint="put images into <class>/ or <class>/images/; see docs/ref-data.md",
            )
    return files


def _images_in(folder: Path) -> list[Path]:
    return [
        p
        for p in folder.iterdir()
        if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") and p.is_file()
    ]


def _read_all(files: list[_ImageFile], spec: ImageSpec, watch: Watch) -> UInt8[Tensor, "n c h w"]:
    images, unreadable = [], []
    for done, file in enumerate(files, start=1):
        try:
            images.append(read_radiograph(file.path, spec))
        except ImageError as error:
            unreadable.append(f"{file.class_name}/{error.message}")
        watch(Step("reading images", done, len(files)))
    if unreadable:
        raise DataError(
            f"{len(unreadable)} of {len(files)} images cannot be read: "
            + "; ".join(unreadable[:NAMED]),
            hint="repair these files or move them elsewhere; none is skipped silently",
        )
    return torch.stack(images)
