from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedcondense.config.site import ImageFolder
from fedcondense.config.study import ImageSpec
from fedcondense.data.dataset import LabeledImages
from fedcondense.data.folder import list_folder
from fedcondense.data.groups import Grouping
from fedcondense.data.problems import naming_files
from fedcondense.data.sources import Reader
from fedcondense.errors import DataError
from fedcondense.progress import silent


def _film(path: Path, grey: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((16, 16), grey, np.uint8)).save(path)


def _read(path: Path, classes: tuple[str, ...] | None = None) -> LabeledImages:
    reader = Reader(ImageSpec(size=16), silent, grouping=Grouping.PATIENTS)
    return reader.read(ImageFolder(kind="folder", path=path), classes).images


def _names(path: Path) -> list[str]:
    return [file.name for file in list_folder(path, None).files]


def _message(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        list_folder(path, None)
    assert caught.value.code == "FC202"
    assert caught.value.hint
    return caught.value.message


def test_the_radiography_database_is_read_as_it_unpacks(tmp_path):
    for grey, name in enumerate(("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")):
        for number in (1, 2):
            _film(tmp_path / name / "images" / f"{name}-{number}.png", 10 * grey + number)
            _film(tmp_path / name / "masks" / f"{name}-{number}.png", 255)
        (tmp_path / f"{name}.metadata.xlsx").touch()
    (tmp_path / "README.md.txt").touch()

    images = _read(tmp_path)

    assert images.classes == ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
    assert images.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert images.images[:, 0, 0, 0].tolist() == [1, 2, 11, 12, 21, 22, 31, 32]


def test_images_may_lie_right_in_the_class_folder(tmp_path):
    _film(tmp_path / "b" / "1.PNG")
    _film(tmp_path / "A" / "1.jpeg")
    _film(tmp_path / "A" / "images" / "2.png")

    images = _read(tmp_path)

    assert images.classes == ("A", "b")
    assert images.counts().tolist() == [2, 1]
    assert (images.sites, images.splits) == (None, None)


def test_every_file_name_of_a_class_is_a_group(tmp_path):
    for name in ("COVID/1.png", "COVID/2.png", "Normal/1.png"):
        _film(tmp_path / name)

    assert _read(tmp_path).groups == ("COVID/1", "COVID/2", "Normal/1")


def test_train_and_test_folders_are_a_given_split(tmp_path):
    for name in ("train/COVID/1.png", "train/Normal/2.png", "test/COVID/1.png"):
        _film(tmp_path / name)

    images = _read(tmp_path)

    assert images.classes == ("COVID", "Normal")
    assert images.splits == ("test", "train", "train")
    assert len(set(images.groups)) == 3


def test_hidden_files_and_folders_are_skipped(tmp_path):
    for name in ("COVID/1.png", "Normal/2.png", "Normal/._2.png", ".cache/x/3.png"):
        _film(tmp_path / name)

    assert len(_read(tmp_path)) == 2


def test_a_study_chooses_the_class_folders_and_their_order(tmp_path):
    for name in ("COVID/1.png", "Normal/2.png", "notes/broken.png"):
        _film(tmp_path / name)
    (tmp_path / "notes/broken.png").write_text("not of the study, so not even opened")

    images = _read(tmp_path, ("Normal", "absent", "COVID"))

    assert images.classes == ("Normal", "absent", "COVID")
    assert images.labels.tolist() == [0, 2]


def test_a_missing_folder_is_refused(tmp_path):
    assert _message(tmp_path / "nowhere") == "nowhere: no such file or directory"


def test_a_file_instead_of_a_folder_is_refused(tmp_path):
    (tmp_path / "data.txt").touch()

    assert _message(tmp_path / "data.txt") == "data.txt: not a directory"


@pytest.mark.parametrize("inside", ["", "COVID", "COVID/images"])
def test_an_empty_folder_is_refused(tmp_path, inside):
    (tmp_path / "data" / inside).mkdir(parents=True)

    assert _message(tmp_path / "data") == "data: no images of any class"


def test_a_folder_without_image_files_is_refused(tmp_path):
    (tmp_path / "data/COVID").mkdir(parents=True)
    (tmp_path / "data/COVID/notes.txt").touch()

    assert _message(tmp_path / "data") == "data: no images of any class"


def test_images_deeper_down_are_refused_not_skipped(tmp_path):
    for name in ("COVID/1.png", "Normal/2.png", "Normal/patient-7/3.png"):
        _film(tmp_path / name)

    assert _message(tmp_path) == "images in a folder that is not read"
    with pytest.raises(DataError) as caught, naming_files():
        list_folder(tmp_path, None)
    assert caught.value.message == "Normal/patient-7: images in a folder that is not read"


def test_rows_are_numbered_from_one_in_the_order_of_classes_and_names(tmp_path):
    for name in ("b/1.png", "A/2.png", "A/1.png"):
        _film(tmp_path / name)

    files = list_folder(tmp_path, None).files

    assert [(file.row, file.name) for file in files] == [
        (1, "A/1.png"),
        (2, "A/2.png"),
        (3, "b/1.png"),
    ]


def test_kinds_of_images_that_are_not_read_are_listed_not_skipped(tmp_path):
    _film(tmp_path / "Normal/1.png")
    for name in ("2.dcm", "3.gif", "4.jp2", "notes.txt"):
        (tmp_path / "Normal" / name).touch()

    assert _names(tmp_path) == ["Normal/1.png", "Normal/2.dcm", "Normal/3.gif", "Normal/4.jp2"]


def test_dicom_files_are_known_by_their_content_whatever_their_names(tmp_path):
    for name in ("IM000001", "1.2.276.0.7230010", "DICOMDIR"):
        (tmp_path / "Normal").mkdir(exist_ok=True)
        (tmp_path / "Normal" / name).write_bytes(bytes(128) + b"DICM")
    (tmp_path / "Normal/LOCKFILE").write_bytes(bytes(132))

    assert _names(tmp_path) == ["Normal/1.2.276.0.7230010", "Normal/IM000001"]


def test_neither_names_nor_paths_show_in_the_listing(tmp_path):
    _film(tmp_path / "Normal/Mustermann_Erika.png")

    assert "Mustermann" not in repr(list_folder(tmp_path, None))


@pytest.mark.parametrize("inner", ["patient-7/study-1", "images/patient-7", "images/a/b/c"])
def test_images_however_deep_are_refused_not_skipped(tmp_path, inner):
    for name in ("COVID/1.png", f"COVID/{inner}/2.png"):
        _film(tmp_path / name)

    with pytest.raises(DataError) as caught, naming_files():
        list_folder(tmp_path, ("COVID",))

    assert caught.value.message == f"COVID/{inner}: images in a folder that is not read"


def test_masks_are_skipped_however_deep_and_links_that_lead_back_are_followed_once(tmp_path):
    for name in ("COVID/1.png", "COVID/notes/masks/1.png", "COVID/images/masks/1.png"):
        _film(tmp_path / name)
    (tmp_path / "COVID/notes/back").symlink_to(tmp_path / "COVID/notes")

    assert _names(tmp_path) == ["COVID/1.png"]


@pytest.mark.parametrize("name", ["data/loose.png", "data/train/loose.png"])
def test_images_beside_the_class_folders_are_refused_not_skipped(tmp_path, name):
    for other in ("data/train/COVID/1.png", "data/test/COVID/2.png", name):
        _film(tmp_path / other)

    assert _message(tmp_path / "data") == "images beside the class folders"


def test_what_is_named_like_an_image_and_is_no_file_is_a_problem(tmp_path):
    _film(tmp_path / "COVID/1.png")
    (tmp_path / "COVID/2.dcm").symlink_to(tmp_path / "taken-away.dcm")
    (tmp_path / "COVID/IM0003").symlink_to(tmp_path / "taken-away")
    os.mkfifo(tmp_path / "COVID/4.png")  # opened, it would never end

    listing = list_folder(tmp_path, None)

    assert [file.row for file in listing.files] == [1]
    assert [(p.row, p.file, p.reason) for p in listing.problems] == [
        (2, "COVID/2.dcm", "a link to nothing"),
        (3, "COVID/4.png", "not a file"),
        (4, "COVID/IM0003", "a link to nothing"),
    ]


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JPG"])
def test_every_suffix_of_jpeg_is_an_image(tmp_path, suffix):
    _film(tmp_path / "COVID/1.jpg")
    (tmp_path / "COVID/1.jpg").rename(tmp_path / f"COVID/1{suffix}")

    assert _read(tmp_path).counts().tolist() == [1]


def test_folders_of_images_that_no_class_is_named_like_are_told(tmp_path):
    for name in ("covid/1.png", "Normal/2.png", "masks/3.png"):
        _film(tmp_path / name)

    listing = list_folder(tmp_path, ("COVID", "Normal"))

    assert listing.other_classes == ("covid",)
    assert "covid" not in repr(listing)


def test_a_folder_of_misspelt_classes_alone_is_told_how_they_are_spelled(tmp_path):
    _film(tmp_path / "covid/1.png")

    with pytest.raises(DataError) as caught:
        list_folder(tmp_path, ("COVID", "Normal"))

    assert caught.value.hint == "folders are named as the study's classes: COVID, Normal"


def test_the_operator_is_told_the_whole_path_of_a_missing_folder(tmp_path):
    with pytest.raises(DataError) as caught, naming_files():
        list_folder(tmp_path / "images", None)

    assert caught.value.message == f"{tmp_path}/images: no such file or directory"
