from __future__ import annotations

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
    _film(tmp_path / "data/loose.png")

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
