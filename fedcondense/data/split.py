"""Training, held-out, validation and test images, cut by group; the data's own split is law."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import torch

from fedcondense.data.dataset import LabeledImages, groups_by_class

TEST_SHARE = 0.25


def train_and_test(images: LabeledImages) -> tuple[LabeledImages, LabeledImages]:
    """Part `images` into training and test images.

    A split that the data gives is law, for a whole group if for any image of it. Of the groups
    that are left open, a quarter of each class is test, those whose name hashes lowest: the same
    group is judged alike wherever it turns up. Both results say their split, so that parting
    either again changes nothing. One side can be empty where the data says so.
    """
    is_test = {group: split == "test" for group, split in _given_splits(images).items()}
    open_rows = [row for row, group in enumerate(images.groups) if group not in is_test]
    chosen = _lowest_hashes(images.select(_rows(open_rows)), TEST_SHARE, "test")
    train, test = _cut(images, chosen | {group for group, held in is_test.items() if held})
    return _named(train, "train"), _named(test, "test")


def training_rows(images: LabeledImages) -> LabeledImages:
    """The images that may be learned from: all but those of groups that the data gives to test."""
    return _cut(images, {g for g, split in _given_splits(images).items() if split == "test"})[0]


def cut_validation(train: LabeledImages, share: float) -> tuple[LabeledImages, LabeledImages]:
    """Cut validation images off training images: (the rest, validation).

    `share`, in (0, 1), is of each class's groups; a class with two groups or more gives at least
    one and keeps at least one.
    """
    return _cut(train, _lowest_hashes(train, share, "validation"))


def cut_held_out(train: LabeledImages, share: float) -> tuple[LabeledImages, LabeledImages]:
    """Cut off what a site's method never sees: (the rest, held out for the audits).

    A group is held out if its name hashes below `share`, in [0, 1). That depends on nothing but
    the group itself, as differential privacy demands of every filter; so small classes can give
    more or fewer than their share. The same groups are held out in all studies and rounds.
    """
    limit = round(share * 2**64)
    names = set(train.groups)
    chosen = {g for g in names if int.from_bytes(_hash("held-out", g)[:8], "big") < limit}
    return _cut(train, chosen)


def _given_splits(images: LabeledImages) -> dict[str, str]:
    splits = images.splits or ("",) * len(images)
    return {group: split for group, split in zip(images.groups, splits, strict=True) if split}


def _lowest_hashes(images: LabeledImages, share: float, purpose: str) -> set[str]:
    """The groups of each class whose hash is lowest; another purpose gives another choice."""
    chosen: set[str] = set()
    for groups in groups_by_class(images):
        if len(groups) > 1:
            take = min(max(round(share * len(groups)), 1), len(groups) - 1)
            chosen.update(sorted(groups, key=lambda group: _hash(purpose, group))[:take])
    return chosen


def _hash(purpose: str, group: str) -> bytes:
    # a file name need not be UTF-8; Python then holds its bytes as surrogates
    text = f"fedcondense/{purpose}/{group}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _cut(images: LabeledImages, chosen: set[str]) -> tuple[LabeledImages, LabeledImages]:
    """(images of the other groups, images of the chosen ones), each in row order."""
    is_chosen = torch.tensor([group in chosen for group in images.groups], dtype=torch.bool)
    return (
        images.select((~is_chosen).nonzero().squeeze(1)),
        images.select(is_chosen.nonzero().squeeze(1)),
    )


def _named(images: LabeledImages, split: str) -> LabeledImages:
    return replace(images, splits=(split,) * len(images))


def _rows(rows: list[int]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int64)
