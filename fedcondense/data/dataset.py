"""A site's images as tensors, each with its class, its group, and what the data says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor


@dataclass(frozen=True)
class LabeledImages:
    """Images in one form, row by row.

    Attributes:
        images: pixels in [0, 255], all of the study's size and channels.
        labels: row numbers of `classes`.
        classes: all names that a label can mean; some may have no image here.
        groups: the unit that never crosses a split or a site, usually a patient. Never empty: an
            image of an unknown patient is a group of its own.
        sites: where the data says each image comes from ("" unknown); None where it says nothing.
        splits: "train", "test", or "" where the data leaves it open; None where it says nothing.
        patients: whose image each is ("" unknown); None where the data names no patient. A unit of
            privacy is made of these, never of `groups`: which images look alike depends on all of
            them, so one patient more could change the groups of others.
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    sites: tuple[str, ...] | None
    splits: tuple[str, ...] | None
    patients: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for column in (self.labels, self.groups, self.sites, self.splits, self.patients):
            assert column is None or len(column) == len(self.images), "one value to an image"

    def __len__(self) -> int:
        return len(self.images)

    def select(self, rows: Int64[Tensor, " m"]) -> LabeledImages:
        """The images of `rows`, in that order; classes keep their numbers."""
        index = rows.tolist()
        return replace(
            self,
            images=self.images[rows],
            labels=self.labels[rows],
            groups=_pick(self.groups, index),
            sites=None if self.sites is None else _pick(self.sites, index),
            splits=None if self.splits is None else _pick(self.splits, index),
            patients=None if self.patients is None else _pick(self.patients, index),
        )

    def counts(self) -> Int64[Tensor, " k"]:
        """Images of each class, in the order of `classes`."""
        return torch.bincount(self.labels, minlength=len(self.classes))


def _pick(column: Sequence[str], index: Sequence[int]) -> tuple[str, ...]:
    return tuple(column[row] for row in index)


def group_members(images: LabeledImages) -> dict[str, list[int]]:
    """The rows of each group; groups stand in the order of their first image."""
    members: dict[str, list[int]] = {}
    for row, group in enumerate(images.groups):
        members.setdefault(group, []).append(row)
    return members


def groups_by_class(images: LabeledImages) -> list[list[str]]:
    """The groups of each class, in row order; a group counts by the class of its first image."""
    by_class: list[list[str]] = [[] for _ in images.classes]
    for group, rows in group_members(images).items():
        by_class[int(images.labels[rows[0]])].append(group)
    return by_class


def crossing_groups(images: LabeledImages) -> list[str]:
    """The groups that the data gives to both train and test."""
    if images.splits is None:
        return []
    return [
        group
        for group, rows in group_members(images).items()
        if {"train", "test"} <= {images.splits[row] for row in rows}
    ]


def half_given_groups(images: LabeledImages) -> list[str]:
    """The groups with images that the data gives to test, and others that it leaves open."""
    splits = images.splits or ("",) * len(images)
    members = group_members(images).items()
    return [group for group, rows in members if {"test", ""} <= {splits[row] for row in rows}]


def without_small_classes(
    images: LabeledImages, least: int
) -> tuple[LabeledImages, tuple[str, ...]]:
    """Leave out every class that fewer than `least` groups have an image of.

    Labels keep their numbers. The names of all classes that are not in the result come second:
    those left out, and those that had no image to begin with.
    """
    seen = set(zip(images.labels.tolist(), images.groups, strict=True))
    groups = torch.tensor([label for label, _ in seen], dtype=torch.int64)
    sizes = torch.bincount(groups, minlength=len(images.classes))
    large = sizes >= max(least, 1)
    kept = images.select(large[images.labels].nonzero().squeeze(1))
    left_out = tuple(
        n for n, is_large in zip(images.classes, large.tolist(), strict=True) if not is_large
    )
    return kept, left_out
