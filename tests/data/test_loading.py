from __future__ import annotations

import numpy as np
import pytest
from dicom_kit import film
from PIL import Image

from fedcondense.config.site import ImageCsv, ImageFolder, ImageNpz, Phantoms
from fedcondense.config.study import ImageSpec
from fedcondense.data.groups import Grouping
from fedcondense.data.loading import load_images
from fedcondense.data.problems import naming_files
from fedcondense.errors import DataError

THREE = np.array(["COVID", "nobody", "Normal"])


def _npz(path):
    return ImageNpz(kind="npz", path=path)


def _folder(path):
    return ImageFolder(kind="folder", path=path)


def _png(path, seed, side=64):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(film(side, 8, seed)).save(path)


def test_an_npz_gives_the_classes_that_have_images_in_its_order(write_archive, spec):
    path = write_archive(labels=np.array([2, 0, 2, 2, 0, 2]), class_names=THREE)

    images = load_images(_npz(path), spec)

    assert images.classes == ("COVID", "Normal")
    assert images.labels.tolist() == [1, 0, 1, 1, 0, 1]


def test_a_study_numbers_the_classes_and_leaves_the_others_out(write_archive, spec):
    path = write_archive(labels=np.array([2, 0, 1, 1, 0, 2]), class_names=THREE)

    images = load_images(_npz(path), spec, classes=("Normal", "Viral", "COVID"))

    assert images.classes == ("Normal", "Viral", "COVID")
    assert images.labels.tolist() == [0, 2, 2, 0]
    assert len(set(images.groups)) == 4


def test_a_site_may_hold_one_class_of_the_study(write_archive, spec):
    path = write_archive(labels=np.zeros(6, int))

    images = load_images(_npz(path), spec, classes=("Normal", "COVID"))

    assert images.counts().tolist() == [6, 0]


def test_a_site_without_any_class_of_the_study_is_refused(write_archive, spec):
    with pytest.raises(DataError) as caught:
        load_images(_npz(write_archive()), spec, classes=("A", "B"))

    assert caught.value.message == "no image of a class of the study; the data has Normal, COVID"


def test_an_npz_of_one_class_is_refused(write_archive, spec):
    with pytest.raises(DataError) as caught:
        load_images(_npz(write_archive(labels=np.ones(6, int))), spec)

    assert caught.value.message == "images of one class only, COVID"


def test_a_folder_of_one_class_is_refused(tmp_path, spec):
    (tmp_path / "COVID").mkdir()
    Image.new("L", (16, 16)).save(tmp_path / "COVID/1.png")

    with pytest.raises(DataError) as caught:
        load_images(ImageFolder(kind="folder", path=tmp_path), spec)

    assert caught.value.message == "images of one class only, COVID"


def test_a_group_on_both_sides_of_the_split_is_refused(write_archive, spec):
    path = write_archive(
        group=np.array(["a", "a", "b", "b", "c", "c"]),
        split=np.array(["train", "test", "test", "train", "test", ""]),
    )

    with pytest.raises(DataError) as caught:
        load_images(_npz(path), spec)

    assert caught.value.message == "2 groups have images in both train and test"


@pytest.mark.parametrize("channels", [1, 3])
def test_phantoms_come_in_the_form_of_the_study(channels):
    source = Phantoms(kind="phantoms", images_per_class=8, size=32)

    images = load_images(source, ImageSpec(size=16, channels=channels))

    assert images.images.shape == (32, channels, 16, 16)
    assert images.counts().tolist() == [8, 8, 8, 8]


def test_images_that_cannot_be_read_are_told_by_row_and_on_a_terminal_by_file(tmp_path, spec):
    for name in ("COVID/Mustermann.png", "Normal/2.png"):
        _png(tmp_path / name, seed=1)
    (tmp_path / "COVID/Mustermann.png").write_bytes(b"")

    with pytest.raises(DataError) as caught:
        load_images(_folder(tmp_path), spec)
    with pytest.raises(DataError) as named, naming_files():
        load_images(_folder(tmp_path), spec)

    assert caught.value.message == "1 of 2 images cannot be used: the file is empty: row 1"
    assert named.value.message == (
        "1 of 2 images cannot be used: COVID/Mustermann.png: the file is empty"
    )


def test_copies_are_one_group_unless_a_filter_must_see_single_records(tmp_path, spec):
    for name, seed in (("A/1.png", 1), ("A/2.png", 2), ("B/3.png", 1)):
        _png(tmp_path / name, seed)

    images = load_images(_folder(tmp_path), spec)
    apart = load_images(_folder(tmp_path), spec, grouping=Grouping.PATIENTS)

    assert images.groups == ("A/1", "A/2", "A/1")
    assert apart.groups == ("A/1", "A/2", "B/3")


def test_copies_on_both_sides_of_the_split_are_refused(tmp_path, spec):
    for name, seed in (("train/A/1", 1), ("train/B/2", 2), ("test/A/3", 1), ("test/B/4", 4)):
        _png(tmp_path / f"{name}.png", seed)

    with pytest.raises(DataError) as caught:
        load_images(_folder(tmp_path), spec)

    assert caught.value.message == "1 groups have images in both train and test"


def test_a_csv_file_is_read_for_a_study(tmp_path, spec):
    for number in (1, 2, 3):
        _png(tmp_path / f"{number}.png", number)
    path = tmp_path / "films.csv"
    rows = ("path,label,patient_id,site", "1.png,Normal,p,a", "2.png,COVID,p,b", "3.png,Normal,q,a")
    path.write_text("\n".join(rows), encoding="utf-8")

    images = load_images(ImageCsv(kind="csv", path=path), spec, classes=("COVID", "X", "Normal"))

    assert images.labels.tolist() == [2, 0, 2]
    assert images.groups == images.patients == ("p", "p", "q")
    assert images.sites == ("a", "b", "a")
    assert images.splits is None


def test_a_cache_gives_the_same_images(tmp_path, spec):
    for name, seed in (("A/1.png", 1), ("B/2.png", 2)):
        _png(tmp_path / "data" / name, seed)

    first, second = (
        load_images(_folder(tmp_path / "data"), spec, cache=tmp_path / "cache") for _ in range(2)
    )

    assert (first.images == second.images).all()
    assert (first.groups, first.classes) == (second.groups, second.classes)
