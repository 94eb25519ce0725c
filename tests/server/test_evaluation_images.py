"""Which images a server scores on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from server_kit import make_office
from wire_kit import small_study

from fedcondense.errors import DataError
from fedcondense.server.evaluation_images import load_evaluation

STUDY = small_study(classes=["Normal", "Viral_Pneumonia"])


def load(folder: Path, **arrays: np.ndarray):
    np.savez(folder / "own.npz", class_names=np.array(["Normal", "Viral_Pneumonia"]), **arrays)
    office = make_office(folder, evaluation={"kind": "npz", "path": "own.npz"})
    return load_evaluation(office.config, STUDY)["test"]


def pictures(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (n, 16, 16)).astype(np.uint8)


def test_of_data_with_a_split_the_test_images_alone_are_scored_on(tmp_path):
    split = np.array(["train", "test", "train", "test"])

    images = load(tmp_path, images=pictures(4), labels=np.array([0, 0, 1, 1]), split=split)

    assert images.labels.tolist() == [0, 1]
    assert set(images.splits) == {"test"}


def test_of_data_without_a_split_all_are(tmp_path):
    images = load(tmp_path, images=pictures(4), labels=np.array([0, 0, 1, 1]))

    assert images.labels.tolist() == [0, 0, 1, 1]


def test_phantoms_are_all_scored_on_and_other_classes_left_out(tmp_path):
    office = make_office(tmp_path)

    images = load_evaluation(office.config, STUDY)["test"]

    assert images.counts().tolist() == [8, 8]


def test_images_of_one_class_are_refused_before_any_site_is_asked(tmp_path):
    with pytest.raises(DataError, match="evaluation images of 1 of the study's classes"):
        load(tmp_path, images=pictures(4), labels=np.array([0, 0, 0, 0]))
