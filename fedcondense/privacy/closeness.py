"""How close a synthetic set comes to training images, and how close unseen patients' images come.

Both are measured alike: against images that the measure knows, by a measure that was made of these
images alone. So a synthetic image that memorised nobody is one more unseen patient's image at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from fedcondense.config.study import ImageSpec
from fedcondense.data.dataset import LabeledImages
from fedcondense.exchange.contribution import SyntheticArrays
from fedcondense.learning.pixels import normalise
from fedcondense.learning.randomness import Seed
from fedcondense.privacy.likeness import (
    RIDGES,
    Contrast,
    Kind,
    Space,
    View,
    features,
    shown_by,
    views,
)
from fedcondense.privacy.statistics import group_numbers
from fedcondense.progress import Step, Watch, silent

ENOUGH_UNSEEN = 100  # groups of a class; more folds make up for fewer that are held out
MOST_UNSEEN = 1_000  # images of a class and fold that are compared
MOST_FOLDS = 10

Veil = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Hospital:
    """Training and held-out images, one after another, in normalised units.

    Fold 0 is held out. Each other number is a part of the training images that plays held-out too:
    as unseen by the rest as held-out images are by training images. -1 never plays.
    """

    images: Float[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    groups: Int64[np.ndarray, " n"]
    folds: Int64[np.ndarray, " n"]
    classes: int
    seed: Seed

    @classmethod
    def of(
        cls, train: LabeledImages, held_out: LabeledImages, spec: ImageSpec, seed: Seed
    ) -> Hospital:
        """Training and held-out images of one site; `seed` deals training groups to folds."""
        labels = torch.cat([train.labels, held_out.labels])
        groups = group_numbers([*train.groups, *held_out.groups])
        is_held = np.arange(len(labels)) >= len(train)
        return cls(
            normalise(torch.cat([train.images, held_out.images]), spec),
            labels,
            groups,
            deal_folds(labels.numpy(), groups, is_held, seed.stream("folds")),
            len(train.classes),
            seed,
        )

    @property
    def trained(self) -> Bool[np.ndarray, " n"]:
        """Which images the set was made from."""
        trained: np.ndarray = self.folds != 0
        return trained

    def of_class(self, label: int) -> Bool[np.ndarray, " n"]:
        """Which images are of one class."""
        of_class: np.ndarray = self.labels.numpy() == label
        return of_class

    def group_count(self, rows: Bool[np.ndarray, " n"]) -> int:
        """Groups with an image among `rows`."""
        return len(np.unique(self.groups[rows]))


@dataclass(frozen=True)
class Scores:
    """Of each picture: the cosine to the nearest image, and how far that one stands out.

    `standing` is the nearest's cosine less the mean of those to all images of the class, in their
    standard deviations: under noise all cosines shrink, but a patient still stands out.
    """

    cosine: Float[np.ndarray, " m"]
    standing: Float[np.ndarray, " m"]

    @classmethod
    def of(cls, ours: Float[Tensor, "m d"], theirs: Float[Tensor, "n d"]) -> Scores:
        """The scores of directions against those of the images that they may be near to."""
        cosines = ours @ theirs.T
        best, spread = cosines.amax(dim=1), cosines.std(dim=1, correction=0).clamp(min=1e-6)
        return cls(best.numpy(), ((best - cosines.mean(dim=1)) / spread).numpy())


@dataclass(frozen=True)
class Closeness:
    """One class in one space and kind.

    `nearest` is the group of the real image next to each synthetic view, training or held out;
    `ours` are the scores of each synthetic unit against training images, `unseen` those of unseen
    patients' images. `veiled`, where it is asked for, are those of unseen patients' images under
    noise as strong as what is their own, and of the noise alone. A unit is a view, or a stored
    image, scored by its closest quadrant.
    """

    label: int
    nearest: Int64[np.ndarray, " v"]
    ours: Scores
    unseen: Scores
    veiled: tuple[Scores, ...]


def deal_folds(
    labels: Int64[np.ndarray, " n"],
    groups: Int64[np.ndarray, " n"],
    is_held: Bool[np.ndarray, " n"],
    drawn: torch.Generator,
) -> Int64[np.ndarray, " n"]:
    """The fold of each image (`Hospital`); folds are about as large as what is held out.

    There are no more of them than give every class `ENOUGH_UNSEEN` groups.
    """
    held = np.unique(groups[is_held])
    fewest = min(len(np.unique(groups[is_held & (labels == c)])) for c in np.unique(labels))
    all_groups = int(groups.max()) + 1
    parts = min(max(round(all_groups / max(len(held), 1)), 2), MOST_FOLDS) - 1
    wanted = max(-(-ENOUGH_UNSEEN // max(fewest, 1)) - 1, 0)
    fold_of = np.full(all_groups, -1, np.int64)
    for label in np.unique(labels):  # a group of several classes stays where the last one dealt it
        own = np.unique(groups[(labels == label) & ~is_held])
        dealt = 1 + torch.randperm(len(own), generator=drawn).numpy() % parts
        fold_of[own] = np.where(dealt <= wanted, dealt, -1)
    fold_of[held] = 0
    folds: np.ndarray = fold_of[groups]
    return folds


def compare(
    arrays: SyntheticArrays, hospital: Hospital, *, partition: int, watch: Watch = silent
) -> Iterator[tuple[Kind, Space, list[Closeness]]]:
    """Every kind in every space, by class; noise only in pixels, where it can be drawn."""
    images = torch.from_numpy(arrays.images)
    labels = torch.from_numpy(arrays.labels.astype(np.int64))
    pairs = list(views(images, labels, hospital.images, partition=partition))
    total, done = len(pairs) * len(Space), 0
    for kind in Kind:
        for space in Space:
            veils = _VEILS if kind is shown_by(partition) and space is Space.PIXELS else ()
            parts: list[list[Closeness]] = []
            for view in (view for view in pairs if view.kind is kind):
                parts.append(closeness(view, space, hospital, veils=veils))
                done += 1
                watch(Step("auditing memorisation", done, total))
            yield kind, space, [_as_units(of_class) for of_class in zip(*parts, strict=True)]


def closeness(
    view: View, space: Space, hospital: Hospital, *, veils: Sequence[Veil] = ()
) -> list[Closeness]:
    """The classes of a view, in order."""
    real, synthetic = features(view.real, space), features(view.synthetic, space)
    present = view.labels.unique().tolist()
    ours: dict[int, Scores] = {}
    strangers: dict[int, list[list[Scores]]] = {label: [] for label in present}
    for fold in range(int(hospital.folds.max()) + 1):
        seen = hospital.folds != fold
        contrast = _contrast(real, seen, space, hospital)
        theirs = contrast.directions(real, hospital.labels)
        drawn = hospital.seed.stream(f"veil-{fold}")
        for label in present:
            candidates = theirs[_rows(seen & hospital.of_class(label))]
            rows = _first_of_groups(~seen & hospital.of_class(label), hospital.groups)
            rows = rows[:MOST_UNSEEN]
            own = contrast.own(real[rows], hospital.labels[rows])
            unseen = [theirs[rows], *(contrast.oriented(veil(own, drawn)) for veil in veils)]
            strangers[label].append([Scores.of(one, candidates) for one in unseen])
            if fold == 0:
                mine = view.labels == label
                directions = contrast.directions(synthetic[mine], view.labels[mine])
                ours[label] = Scores.of(directions, candidates)
    nearest = _nearest(view, real, synthetic, _contrast(real, None, space, hospital), hospital)
    found = []
    for label in present:
        unseen_scores, *veiled = (_joined(parts) for parts in zip(*strangers[label], strict=True))
        found.append(Closeness(label, nearest[label], ours[label], unseen_scores, tuple(veiled)))
    return found


def noise_as_strong(own: Float[Tensor, "n d"], drawn: torch.Generator) -> Float[Tensor, "n d"]:
    """Noise of the length of what each picture has of its own."""
    noise = F.normalize(torch.randn(own.shape, generator=drawn))
    return noise * own.norm(dim=1, keepdim=True)


def under_noise(own: Float[Tensor, "n d"], drawn: torch.Generator) -> Float[Tensor, "n d"]:
    """What pictures have of their own, under noise that is as strong."""
    return own + noise_as_strong(own, drawn)


_VEILS: tuple[Veil, ...] = (under_noise, noise_as_strong)


def _contrast(
    real: Tensor, seen: Bool[np.ndarray, " n"] | None, space: Space, hospital: Hospital
) -> Contrast:
    rows = slice(None) if seen is None else _rows(seen)
    return Contrast.of(
        real[rows], hospital.labels[rows], classes=hospital.classes, ridge=RIDGES[space]
    )


def _nearest(
    view: View, real: Tensor, synthetic: Tensor, contrast: Contrast, hospital: Hospital
) -> dict[int, Int64[np.ndarray, " v"]]:
    """The group next to each synthetic view, by a contrast that knows of no split."""
    theirs = contrast.directions(real, hospital.labels)
    ours = contrast.directions(synthetic, view.labels)
    found = {}
    for label in view.labels.unique().tolist():
        rows = _rows(hospital.of_class(label))
        best = (ours[view.labels == label] @ theirs[rows].T).argmax(dim=1)
        found[label] = hospital.groups[rows[best].numpy()]
    return found


def _as_units(parts: Sequence[Closeness]) -> Closeness:
    """The parts of stored images as units: each is as close as its closest part."""
    return Closeness(
        parts[0].label,
        np.concatenate([part.nearest for part in parts]),
        _highest([part.ours for part in parts]),
        _highest([part.unseen for part in parts]),
        tuple(_highest(scores) for scores in zip(*(part.veiled for part in parts), strict=True)),
    )


def _highest(parts: Sequence[Scores]) -> Scores:
    return Scores(
        np.max([part.cosine for part in parts], axis=0),
        np.max([part.standing for part in parts], axis=0),
    )


def _joined(parts: Sequence[Scores]) -> Scores:
    return Scores(
        np.concatenate([part.cosine for part in parts]),
        np.concatenate([part.standing for part in parts]),
    )


def _rows(mask: Bool[np.ndarray, " n"]) -> Int64[Tensor, " m"]:
    return torch.from_numpy(np.flatnonzero(mask))


def _first_of_groups(
    mask: Bool[np.ndarray, " n"], groups: Int64[np.ndarray, " n"]
) -> Int64[Tensor, " m"]:
    """One image of each group: several films of a patient would count for one surprise."""
    rows = np.flatnonzero(mask)
    return torch.from_numpy(rows[np.unique(groups[rows], return_index=True)[1]])
