"""Images in a folder of class folders, such as the COVID-19 Radiography Database unpacks to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedcondense.data.dicom import MARK, PREAMBLE, is_dicom
from fedcondense.data.listing import ImageFile, Listing, sorted_names
from fedcondense.data.problems import UnusableImages
from fedcondense.errors import DataError

# what a person takes for an image: those we cannot read are then refused, never skipped
IMAGE_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".jp2", ".dcm", ".dicom")
)
DICOM_INDEX = "DICOMDIR"  # looks like DICOM and holds no image
INNER_FOLDER = "images"
SKIPPED_FOLDERS = frozenset({"masks"})  # lung outlines lie beside the images
SPLITS = ("train", "test")


@dataclass(frozen=True)
class _Place:
    path: Path
    class_name: str
    split: str


def list_folder(path: Path, classes: tuple[str, ...] | None) -> Listing:
    """List `<class>/*` and `<class>/images/*`, or two such trees under `train` and `test`.

    Classes are the folders that hold images, sorted without regard to case, or `classes`, whose
    folders alone are then listed. Folders say nothing of patients: each file name of a class is a
    group of its own.

    Raises:
        DataError: no images are there, or they lie where they are not looked for.
    """
    try:
        places = [p for p in _places(path) if classes is None or p.class_name in classes]
    except OSError as error:
        raise DataError(
            f"{path.name}: {(error.strerror or 'unreadable').lower()}",
            hint="give a folder of class folders that this user can read",
        ) from None
    if not places:
        raise DataError(
            f"{path.name}: no images of any class",
            hint="expected <class>/*.png or <class>/images/*.png; see docs/ref-data.md",
        )
    classes = classes or sorted_names(place.class_name for place in places)
    places.sort(key=lambda place: (classes.index(place.class_name), place.split, place.path))
    files = (_image_file(path, row, place) for row, place in enumerate(places, start=1))
    return Listing(tuple(files), classes)


def _image_file(root: Path, row: int, place: _Place) -> ImageFile:
    return ImageFile(
        row=row,
        path=place.path,
        name=place.path.relative_to(root).as_posix(),
        class_name=place.class_name,
        group="/".join(part for part in (place.split, place.class_name, place.path.stem) if part),
        split=place.split,
    )


def _places(path: Path) -> Iterator[_Place]:
    folders = _folders(path)
    is_split = bool(folders) and {folder.name for folder in folders} <= set(SPLITS)
    for tree in folders if is_split else [path]:
        for folder in _folders(tree):
            for file in _files_of_class(folder):
                yield _Place(file, folder.name, tree.name if is_split else "")


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _files_of_class(folder: Path) -> list[Path]:
    files = _images_in(folder)
    for inner in _folders(folder):
        if inner.name == INNER_FOLDER:
            files += _images_in(inner)
        elif inner.name not in SKIPPED_FOLDERS and _images_in(inner):
            raise UnusableImages(
                "images in a folder that is not read",
                hint="put images into <class>/ or <class>/images/; see docs/ref-data.md",
                by_file=f"{folder.name}/{inner.name}: images in a folder that is not read",
            )
    return files


def _images_in(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if not p.name.startswith(".") and _is_image(p)]


def _is_image(path: Path) -> bool:
    """By the name; archives of DICOM files often give them none that says so."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return path.is_file()
    if path.name == DICOM_INDEX or not path.is_file():
        return False
    with path.open("rb") as file:
        return is_dicom(file.read(PREAMBLE + len(MARK)))
