from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fedcondense.config.site import ImageFolder, ImageNpz, Phantoms
from fedcondense.config.study import ImageSpec
from fedcondense.data.loading import load_images
from fedcondense.errors import DataError

THREE = np.array(["COVID", "nobody", "Normal"])


def _npz(path):
    return ImageNpz(kind="npz", path=path)


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
    assert images.groups == ("row-0", "row-1", "row-4", "row-5")


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
