from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fedcondense.data.dataset import (
    LabeledImages,
    crossing_groups,
    groups_by_class,
    without_small_classes,
)


def _images(labels: list[int], groups: str, classes: tuple[str, ...]) -> LabeledImages:
    pixels = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 16, 16)
    return LabeledImages(pixels, torch.tensor(labels), classes, tuple(groups), None, None)


def test_selected_rows_keep_all_their_columns():
    images = _images([0, 1, 0], "abc", ("x", "y"))
    images = LabeledImages(
        images.images,
        images.labels,
        images.classes,
        images.groups,
        ("s", "t", "u"),
        ("", "", "test"),
        ("p", "", "q"),
    )

    chosen = images.select(torch.tensor([2, 1]))

    assert chosen.images[:, 0, 0, 0].tolist() == [2, 1]
    assert chosen.labels.tolist() == [0, 1]
    assert (chosen.groups, chosen.sites, chosen.splits) == (("c", "b"), ("u", "t"), ("test", ""))
    assert chosen.patients == ("q", "")


def test_counts_include_classes_without_images():
    assert _images([2, 0, 2], "abc", ("x", "y", "z")).counts().tolist() == [1, 0, 2]


def test_a_group_counts_by_the_class_of_its_first_image():
    assert groups_by_class(_images([1, 0, 0], "aab", ("x", "y"))) == [["b"], ["a"]]


def test_groups_on_both_sides_of_the_given_split_cross_it():
    images = _images([0, 1, 0, 1, 0], "aabbc", ("x", "y"))
    assert crossing_groups(images) == []

    split = replace(images, splits=("train", "", "test", "train", "test"))

    assert crossing_groups(split) == ["b"]


def test_columns_of_another_length_are_a_mistake_of_ours():
    with pytest.raises(AssertionError):
        _images([0, 1], "abc", ("x", "y"))


def test_small_classes_are_left_out_by_groups_not_images():
    # class x: four images of one group; class y: two groups; class z: none
    images = _images([0, 0, 0, 0, 1, 1], "aaaabc", ("x", "y", "z"))

    kept, left_out = without_small_classes(images, 2)

    assert kept.labels.tolist() == [1, 1]
    assert kept.classes == ("x", "y", "z")
    assert left_out == ("x", "z")


def test_nothing_is_left_out_of_large_classes():
    images = _images([0, 1], "ab", ("x", "y"))

    kept, left_out = without_small_classes(images, 1)

    assert len(kept) == 2
    assert left_out == ()


def test_all_classes_may_be_too_small():
    kept, left_out = without_small_classes(_images([0, 1], "ab", ("x", "y")), 2)

    assert len(kept) == 0
    assert left_out == ("x", "y")
