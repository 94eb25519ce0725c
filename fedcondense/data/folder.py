"""Images in a folder of class folders, such as the COVID-19 Radiography Database unpacks to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedcondense.data.dicom import MARK, PREAMBLE, is_dicom
from fedcondense.data.listing import ImageFile, Listing, sorted_names
from fedcondense.data.problems import Problem, UnusableImages

# what a person takes for an image: those we cannot read are then refused, never skipped
IMAGE_SUFFIXES = frozenset(
    (
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff"),
        *(".gif", ".webp", ".jp2", ".dcm", ".dicom"),
    )
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
    folders alone are then listed; others that hold images are told. Folders say nothing of
    patients: each file name of a class is a group of its own. What is named like an image and is no
    file is told as a problem, unopened.

    Raises:
        DataError: no images are there, or they lie where they are not looked for.
    """
    try:
        places, others = _places(path, classes)
    except OSError as error:
        problem = (error.strerror or "unreadable").lower()
        raise UnusableImages(
            f"{path.name}: {problem}",
            hint="give a folder of class folders that this user can read",
            by_file=f"{error.filename or path}: {problem}",
        ) from None
    if not places:
        raise UnusableImages(
            f"{path.name}: no images of any class",
            hint=_class_hint(others, classes),
            by_file=f"{path}: no images of any class",
        )
    classes = classes or sorted_names(place.class_name for place in places)
    places.sort(key=lambda place: (classes.index(place.class_name), place.split, place.path))
    files: list[ImageFile] = []
    problems: list[Problem] = []
    for row, place in enumerate(places, start=1):
        file = _image_file(path, row, place)
        if place.path.is_file():
            files.append(file)
        else:
            reason = "not a file" if place.path.exists() else "a link to nothing"
            problems.append(Problem(row, reason, file=file.name))
    return Listing(tuple(files), classes, tuple(problems), sorted_names(others))


def _class_hint(others: set[str], classes: tuple[str, ...] | None) -> str:
    hint = "expected <class>/*.png or <class>/images/*.png; see docs/ref-data.md"
    if others and classes:
        hint = f"folders are named as the study's classes: {', '.join(classes)}"
    return hint


def _image_file(root: Path, row: int, place: _Place) -> ImageFile:
    return ImageFile(
        row=row,
        path=place.path,
        name=place.path.relative_to(root).as_posix(),
        class_name=place.class_name,
        group="/".join(part for part in (place.split, place.class_name, place.path.stem) if part),
        split=place.split,
    )


def _places(path: Path, classes: tuple[str, ...] | None) -> tuple[list[_Place], set[str]]:
    """What is to be listed, and which other folders hold images."""
    folders = _folders(path)
    is_split = bool(folders) and {folder.name for folder in folders} <= set(SPLITS)
    places: list[_Place] = []
    others: set[str] = set()
    if is_split and _images_in(path):
        raise _unread(path, path, "beside the class folders")
    for tree in folders if is_split else [path]:
        if _images_in(tree):
            raise _unread(path, tree, "beside the class folders")
        split = tree.name if is_split else ""
        for folder in _folders(tree):
            if classes is None or folder.name in classes:
                places += [_Place(file, folder.name, split) for file in _files_of_class(folder)]
            elif folder.name not in SKIPPED_FOLDERS and _folder_of_images(folder):
                others.add(folder.name)
    return places, others


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _files_of_class(folder: Path) -> list[Path]:
    files = _images_in(folder)
    unread = []
    for inner in _folders(folder):
        if inner.name == INNER_FOLDER:
            files += _images_in(inner)
            unread += _folders(inner)
        else:
            unread.append(inner)
    for inner in unread:
        if inner.name not in SKIPPED_FOLDERS and (found := _folder_of_images(inner)):
            raise _unread(folder.parent, found, "in a folder that is not read")
    return files


def _folder_of_images(top: Path) -> Path | None:
    """The first folder with an image, however deep; archives nest patient, study and series."""
    waiting, seen = [top], set()
    while waiting:
        folder = waiting.pop(0)
        if folder.resolve() in seen:
            continue  # links can lead back
        seen.add(folder.resolve())
        if _images_in(folder):
            return folder
        waiting += [inner for inner in _folders(folder) if inner.name not in SKIPPED_FOLDERS]
    return None


def _unread(root: Path, folder: Path, where: str) -> UnusableImages:
    name = folder.name if folder == root else folder.relative_to(root).as_posix()
    return UnusableImages(
        f"images {where}",
        hint="put images into <class>/ or <class>/images/, or list them in a CSV file; "
        "see docs/ref-data.md",
        by_file=f"{name}: images {where}",
    )


def _images_in(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if not p.name.startswith(".") and _is_image(p)]


def _is_image(path: Path) -> bool:
    """By the name; archives of DICOM files often give them none that says so."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return not path.is_dir()
    if path.name == DICOM_INDEX:
        return False
    if not path.is_file():
        return path.is_symlink() and not path.exists()  # to what, its name does not say
    try:
        with path.open("rb") as file:
            return is_dicom(file.read(PREAMBLE + len(MARK)))
    except OSError:
        return True  # what may be an image is told, not passed over
