from __future__ import annotations

import re
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedcondense.config.study import ImageSpec
from fedcondense.data.archive import read_archive, save_images
from fedcondense.data.dataset import LabeledImages
from fedcondense.data.groups import Grouping
from fedcondense.errors import DataError
from fedcondense.progress import silent

GREY = np.arange(6 * 20 * 20).reshape(6, 20, 20).astype(np.uint8)


def _message(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_archive(path, ImageSpec(size=16), silent)
    assert caught.value.code == "FC202"
    assert caught.value.hint
    return caught.value.message


def _groups(path: Path) -> tuple[str, ...]:
    return read_archive(path, ImageSpec(size=16), silent).groups


@pytest.mark.parametrize(
    "images",
    [GREY, GREY[..., None], GREY[:, None], np.stack([GREY] * 3, 3), np.stack([GREY] * 3, 1)],
    ids=["NHW", "NHW1", "N1HW", "NHW3", "N3HW"],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_layout_means_the_same_images(write_archive, images, channels):
    read = read_archive(write_archive(images=images), ImageSpec(size=20, channels=channels), silent)

    assert read.images.shape == (6, channels, 20, 20)
    assert (read.images == torch.from_numpy(GREY)[:, None]).all()


def test_columns_are_kept(write_archive):
    path = write_archive(
        site=np.array(["a", "", "b", "b", "a", "a"]),
        split=np.array(["train", "test", "", "train", "train", "test"]),
    )

    read = read_archive(path, ImageSpec(size=16), silent)

    assert read.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert read.classes == ("Normal", "COVID")
    assert read.sites == ("a", "", "b", "b", "a", "a")
    assert read.splits == ("train", "test", "", "train", "train", "test")


def test_without_columns_nothing_is_invented(write_archive):
    read = read_archive(write_archive(), ImageSpec(size=16), silent)

    assert read.sites is None
    assert read.splits is None


def test_an_image_without_group_and_patient_is_a_group_of_its_own(write_archive):
    groups = _groups(write_archive())

    assert len(set(groups)) == 6
    assert all(group.startswith("image-") for group in groups)


def test_equal_images_of_which_nothing_is_known_are_one_group_within_a_class(write_archive):
    labels = np.array([0, 0, 1, 1, 1, 1])

    groups = _groups(write_archive(images=GREY[[0, 0, 0, 1, 2, 3]], labels=labels))

    assert groups[0] == groups[1] != groups[2]


def test_the_name_of_an_image_of_which_nothing_is_known_is_its_own(write_archive):
    everyone = _groups(write_archive())

    fewer = _groups(write_archive(images=GREY[1:], labels=np.arange(1, 6) % 2))

    assert fewer == everyone[1:]


def test_the_group_comes_before_the_patient(write_archive):
    path = write_archive(
        group=np.array(["g1", "g1", "g2", "", "", ""]),
        patient_id=np.array(["p1", "p2", "p3", "p9", "p3", ""]),
    )

    # row 4 has no group, but its patient p3 has one
    assert _groups(path)[:-1] == ("g1", "g1", "g2", "p9", "g2")


def test_under_differential_privacy_no_row_takes_the_group_of_another(write_archive):
    path = write_archive(
        group=np.array(["g1", "", "", "", "", ""]),
        patient_id=np.array(["p1", "p1", "p2", "", "", ""]),
    )

    with pytest.raises(DataError) as caught:
        read_archive(path, ImageSpec(size=16), silent, Grouping.PATIENTS)

    assert caught.value.message == (
        "1 patients have a group on some of their images and none on others"
    )


def test_progress_reaches_the_number_of_images(write_archive):
    steps = []

    read_archive(write_archive(), ImageSpec(size=16), steps.append)

    assert (steps[-1].stage, steps[-1].done, steps[-1].total) == ("reading images", 6, 6)


def test_the_example_of_the_reference_can_be_read(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs/ref-data.md").read_text()
    example = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)

    exec(example, {"numpy": np, "images": GREY, "labels": np.arange(6) % 2, "patients": [1] * 6})

    assert _groups(tmp_path / "site.npz") == ("1",) * 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"images": GREY.astype(object)},
            "site.npz: images: holds Python objects, which are never unpickled",
        ),
        (
            {"group": np.array(["a", None] * 3, dtype=object)},
            "site.npz: group: holds Python objects, which are never unpickled",
        ),
        ({"images": GREY / 255}, "site.npz: images must be uint8, found float64"),
        (
            {"images": np.where(GREY == 7, np.nan, GREY)},
            "site.npz: images must be uint8, found float64, some not finite",
        ),
        ({"images": GREY.astype(np.uint16)}, "site.npz: images must be uint8, found uint16"),
        (
            {"images": GREY[0]},
            "site.npz: images have shape (20, 20), "
            "expected (N, H, W), (N, H, W, C) or (N, C, H, W)",
        ),
        (
            {"images": np.stack([GREY] * 4, 3)},
            "site.npz: images have shape (6, 20, 20, 4), "
            "expected (N, H, W), (N, H, W, C) or (N, C, H, W)",
        ),
        (
            {"images": GREY[:, :3]},
            "site.npz: images have shape (6, 3, 20), "
            "expected (N, H, W), (N, H, W, C) or (N, C, H, W)",
        ),
        ({"images": GREY[:0], "labels": np.zeros(0, int)}, "site.npz: holds no images"),
        ({"labels": None}, "site.npz: no array labels"),
        ({"labels": np.arange(5)}, "site.npz: labels has shape (5,), expected (6,)"),
        (
            {"labels": np.zeros((6, 1), int)},
            "site.npz: labels has shape (6, 1), expected (6,)",
        ),
        ({"labels": np.zeros(6)}, "site.npz: labels are float64, expected integers"),
        (
            {"labels": np.array([0, 1, 2, 0, 1, 0])},
            "site.npz: labels run from 0 to 2, expected 0 to 1",
        ),
        (
            {"labels": np.array([0, 1, -1, 0, 1, 0])},
            "site.npz: labels run from -1 to 1, expected 0 to 1",
        ),
        (
            {"class_names": np.array([0, 1])},
            "site.npz: class_names is int64 with shape (2,), expected a row of texts",
        ),
        (
            {"class_names": np.array(["A", "A"])},
            "site.npz: class_names has an empty or repeated name",
        ),
        ({"site": np.array(["a"] * 7)}, "site.npz: site has shape (7,), expected (6,)"),
        (
            {"patient_id": np.arange(6)},
            "site.npz: patient_id is int64 with shape (6,), expected a row of texts",
        ),
        (
            {"group": np.array(["g" * 1025] * 6)},
            "site.npz: group is <U1025 with shape (6,), expected a row of texts",
        ),
        (
            {"group": np.array(["\ud800"] * 6)},
            "site.npz: group holds text that is not Unicode",
        ),
        (
            {"split": np.array(["train", "val", "test"] * 2)},
            "site.npz: split has the unknown word 'val'",
        ),
    ],
)
def test_an_archive_out_of_form_is_refused_in_one_line(write_archive, changes, message):
    assert _message(write_archive(**changes)) == message


_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4)


@given(
    labels=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    sites=st.none() | st.tuples(_TEXT, _TEXT, _TEXT, _TEXT),
    splits=st.none() | st.just(("test", "", "train", "")),
    patients=st.none() | st.tuples(_TEXT, _TEXT, _TEXT, _TEXT),
)
def test_what_was_saved_is_read(tmp_path_factory, labels, sites, splits, patients):
    path = tmp_path_factory.mktemp("archive") / "images.npz"
    pixels = torch.arange(4 * 16 * 16).view(4, 1, 16, 16).to(torch.uint8)
    classes = ("Normal", "Viral Pneumonia", "nobody")
    images = LabeledImages(
        pixels, torch.tensor(labels), classes, ("g", "h", "g", "i"), sites, splits, patients
    )
    save_images(images, path)

    read = read_archive(path, ImageSpec(size=16), silent)

    assert torch.equal(read.images, images.images)
    assert torch.equal(read.labels, images.labels)
    assert (read.classes, read.groups) == (images.classes, images.groups)
    assert (read.sites, read.splits) == (images.sites, images.splits)
    assert read.patients == images.patients


def test_saved_images_are_for_their_owner_alone(tmp_path, write_archive):
    images = read_archive(write_archive(), ImageSpec(size=16), silent)

    save_images(images, tmp_path / "images.npz")

    assert stat.S_IMODE((tmp_path / "images.npz").stat().st_mode) == 0o600
