from __future__ import annotations

import numpy as np
import pytest

from fedcondense.config.loading import parse_settings
from fedcondense.config.scenario import Scenario
from fedcondense.errors import DataError
from fedcondense.research.played_sites import covered
from fedcondense.research.scenario_run import read_images


def archive(path, n=40, first=0, splits=("train", "test")):
    """Grey images of two classes, two films of each patient; a patient is on one side."""
    rng = np.random.default_rng(first)
    patients = first + np.arange(n) // 2
    np.savez(
        path,
        images=rng.integers(0, 255, (n, 16, 16), dtype=np.uint8),
        labels=(patients % 2).astype(np.int8),
        class_names=np.array(["COVID", "Normal"]),
        group=np.array([f"p{p}" for p in patients]),
        split=np.array([splits[int(p % 4 == 3)] for p in patients]),
    )
    return path


def scenario(path, **changes) -> Scenario:
    values = {
        "name": "toy",
        "distill": {"method": "idm"},
        "image": {"size": 16},
        "network": {"depth": 2},
        "images": {"kind": "npz", "path": str(path)},
    }
    return parse_settings(Scenario, values | changes, "toy.toml")


def test_a_given_split_is_law(tmp_path):
    found = read_images(scenario(archive(tmp_path / "a.npz")))

    assert set(found.tests) == {"test"}
    assert set(found.tests["test"].groups) == {f"p{p}" for p in range(20) if p % 4 == 3}


def test_validation_is_cut_from_train_and_the_test_images_stay_unread(tmp_path):
    path = archive(tmp_path / "a.npz")
    whole = read_images(scenario(path))

    found = read_images(scenario(path, read="validation"))

    train, validation = set(found.train.groups), set(found.tests["validation"].groups)
    assert train | validation == set(whole.train.groups)
    assert not train & validation
    assert not validation & set(whole.tests["test"].groups)


def test_external_images_of_a_group_that_is_learned_from_are_left_out(tmp_path):
    path = archive(tmp_path / "a.npz")
    archive(tmp_path / "b.npz", n=40, first=10)  # patients 10 to 29; 10 to 19 are known

    found = read_images(scenario(path, external={"path": str(tmp_path / "b.npz")}))

    learned = set(found.train.groups)
    assert not learned & set(found.tests["external"].groups)
    assert {"p11", "p20", "p29"} <= set(found.tests["external"].groups)


def test_external_images_may_be_of_some_classes_only(tmp_path):
    path = archive(tmp_path / "a.npz")
    archive(tmp_path / "b.npz", first=100)
    external = {"path": str(tmp_path / "b.npz"), "classes": ["Normal"]}

    found = read_images(scenario(path, external=external))

    assert found.tests["external"].counts().tolist() == [0, 20]


def test_a_split_without_test_images_is_refused(tmp_path):
    path = archive(tmp_path / "a.npz", splits=("train", "train"))

    with pytest.raises(DataError, match="the split leaves no test image"):
        read_images(scenario(path))


def test_overlapping_times_are_counted_once():
    assert covered([(0.0, 2.0), (1.0, 3.0), (5.0, 6.0)]) == 4
    assert covered([(0.0, 10.0), (2.0, 3.0)]) == 10
    assert covered([(4.0, 3.0)]) == 0
    assert covered([]) == 0
