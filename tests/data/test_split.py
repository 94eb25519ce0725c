from __future__ import annotations

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedcondense.data.dataset import LabeledImages
from fedcondense.data.split import (
    cut_held_out,
    cut_validation,
    train_and_test,
    training_rows,
)


def _images(labels: list[int], groups: list[str], splits: list[str] | None = None) -> LabeledImages:
    """Each image's pixels are its row number, so that it can be found again."""
    pixels = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 16, 16)
    return LabeledImages(
        pixels,
        torch.tensor(labels),
        ("a", "b", "c"),
        tuple(groups),
        None,
        None if splits is None else tuple(splits),
    )


def _numbers(images: LabeledImages) -> list[int]:
    return images.images[:, 0, 0, 0].tolist()


@st.composite
def _columns(draw: st.DrawFn) -> tuple[list[int], list[str], list[str] | None]:
    n = draw(st.integers(2, 60))
    rows = st.lists(st.integers(0, 2), min_size=n, max_size=n)
    groups = [f"g{draw(st.integers(0, n))}" for _ in range(n)]
    given_split = {group: draw(st.sampled_from(["train", "test", ""])) for group in set(groups)}
    splits = draw(st.sampled_from([None, [given_split[group] for group in groups]]))
    return draw(rows), groups, splits


@given(columns=_columns())
def test_no_group_crosses_a_split_and_no_image_is_lost(columns):
    images = _images(*columns)

    train, test = train_and_test(images)

    assert not set(train.groups) & set(test.groups)
    assert sorted(_numbers(train) + _numbers(test)) == list(range(len(images)))


@given(columns=_columns(), share=st.floats(0.05, 0.9))
def test_no_group_crosses_into_validation_and_no_image_is_lost(columns, share):
    images = _images(*columns)

    rest, validation = cut_validation(images, share)

    assert not set(rest.groups) & set(validation.groups)
    assert sorted(_numbers(rest) + _numbers(validation)) == list(range(len(images)))


@given(columns=_columns())
def test_a_given_split_is_law(columns):
    images = _images(*columns)

    train, test = train_and_test(images)

    for row, split in enumerate(images.splits or ()):
        if split:
            assert (row in _numbers(test)) == (split == "test")
    assert set(train.splits) <= {"train"}
    assert set(test.splits) <= {"test"}


@given(columns=_columns())
def test_parting_again_changes_nothing(columns):
    images = _images(*columns)

    train, test = train_and_test(images)

    assert [len(part) for part in train_and_test(train)] == [len(train), 0]
    assert [len(part) for part in train_and_test(test)] == [0, len(test)]


def test_an_open_image_follows_its_group():
    images = _images([0, 0, 1], ["g", "g", "h"], ["", "test", "train"])

    train, test = train_and_test(images)

    assert (_numbers(train), _numbers(test)) == ([2], [0, 1])


def test_a_quarter_of_each_class_is_test():
    labels = [0] * 40 + [1] * 20
    images = _images(labels, [f"g{row}" for row in range(60)])

    _, test = train_and_test(images)

    assert test.counts().tolist() == [10, 5, 0]


def test_the_split_does_not_depend_on_the_order_of_rows():
    images = _images([0] * 40, [f"g{row}" for row in range(40)])

    backwards = images.select(torch.arange(39, -1, -1))

    assert set(train_and_test(images)[1].groups) == set(train_and_test(backwards)[1].groups)


def test_training_rows_are_all_but_the_groups_given_to_test():
    images = _images([0, 0, 1, 1], ["g", "g", "h", "i"], ["", "test", "train", ""])

    assert _numbers(training_rows(images)) == [2, 3]


def test_without_a_given_split_every_row_is_for_training():
    images = _images([0, 1], ["g", "h"])

    assert _numbers(training_rows(images)) == [0, 1]


@pytest.mark.parametrize(("groups", "expected"), [(1, 0), (2, 1), (3, 1), (40, 8)])
def test_validation_is_a_share_of_groups_but_never_all_or_none(groups, expected):
    images = _images([0] * groups, [f"g{row}" for row in range(groups)])

    _, validation = cut_validation(images, 0.2)

    assert len(validation) == expected


def test_validation_and_test_are_chosen_independently():
    images = _images([0] * 200, [f"g{row}" for row in range(200)])

    validation = set(cut_validation(images, 0.25)[1].groups)
    test = set(train_and_test(images)[1].groups)

    assert 3 <= len(validation & test) <= 25  # 12.5 expected by chance


@given(columns=_columns(), share=st.floats(0, 0.9))
def test_no_group_crosses_into_the_held_out_images_and_no_image_is_lost(columns, share):
    images = _images(*columns)

    rest, held_out = cut_held_out(images, share)

    assert not set(rest.groups) & set(held_out.groups)
    assert sorted(_numbers(rest) + _numbers(held_out)) == list(range(len(images)))


def test_whether_a_group_is_held_out_depends_on_nobody_else():
    names = [f"g{n}" for n in range(200)]
    everyone = set(cut_held_out(_images([0] * 200, names), 0.3)[1].groups)

    for left in (1, 50, 199):
        some = names[:left]
        found = set(cut_held_out(_images([0] * left, some), 0.3)[1].groups)
        assert found == everyone & set(some)


def test_about_the_share_is_held_out_and_none_at_zero():
    names = [f"g{n}" for n in range(200)]
    images = _images([0] * 200, names)

    assert len(cut_held_out(images, 0.0)[1]) == 0
    assert 20 <= len(cut_held_out(images, 0.2)[1]) <= 60  # binomial: 40 +- 3.5 s.d.


def test_a_group_named_by_bytes_that_are_no_utf8_is_cut_like_any_other():
    groups = [os.fsdecode(b"M\xfcller-%d" % number) for number in range(40)]

    train, held_out = cut_held_out(_images([0] * 40, groups), 0.5)
    _, test = train_and_test(_images([0] * 40, groups))

    assert 0 < len(held_out) < 40
    assert set(train.groups) | set(held_out.groups) == set(groups)
    assert len(test) == 10
