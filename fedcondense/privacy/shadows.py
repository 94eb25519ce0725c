"""What condensed sets show of each image: of shadows, and of the set that would leave.

Shadow sets come from the same pipeline, run on halves of a site's images, in complementary pairs
of whole groups: each image is in half of them. What they cost is nearly all that an audit of
membership costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from fedcondense.config.study import Study
from fedcondense.data.dataset import LabeledImages, groups_by_class
from fedcondense.exchange.contribution import SyntheticArrays
from fedcondense.learning.networks import build_network
from fedcondense.learning.partition import expand_labels, expand_partitions
from fedcondense.learning.pixels import normalise
from fedcondense.learning.randomness import Seed
from fedcondense.learning.training import RATE, TrainingSet, predict, train_classifier
from fedcondense.privacy.attack_scores import Members, Signals
from fedcondense.privacy.likeness import RIDGES, Contrast, Space, View, features, shown_by, views
from fedcondense.progress import Step, Watch, silent

MODELS, MODEL_STEPS, MODEL_BATCH = 2, 300, 64  # trained on each set that is attacked

Redistill = Callable[[LabeledImages, Seed], SyntheticArrays]


@dataclass(frozen=True)
class Shadows:
    """What the shadow sets show of each image: all (shadows, images).

    `nearness` is minus a distance: the cosine to the nearest synthetic view of its class;
    `probability` that of its class, by networks trained on the set.
    """

    members: Members
    nearness: Signals
    probability: Signals


def joined(train: LabeledImages, held_out: LabeledImages) -> LabeledImages:
    """All images of a site, training ones first, with their patients where both name them."""
    named = train.patients is not None and held_out.patients is not None
    return LabeledImages(
        torch.cat([train.images, held_out.images]),
        torch.cat([train.labels, held_out.labels]),
        train.classes,
        (*train.groups, *held_out.groups),
        None,
        None,
        (*(train.patients or ()), *(held_out.patients or ())) if named else None,
    )


def halves(images: LabeledImages, shadows: int, drawn: torch.Generator) -> Members:
    """Which images each shadow sees: of each class half of the groups; the next sees the rest."""
    rows: list[Bool[np.ndarray, " n"]] = []
    groups = np.asarray(images.groups)
    for _ in range(shadows // 2):
        chosen: list[str] = []
        for of_class in groups_by_class(images):
            order = torch.randperm(len(of_class), generator=drawn).tolist()
            chosen += [of_class[place] for place in order[: len(of_class) // 2]]
        half = np.isin(groups, chosen)
        rows += [half, ~half]
    return np.stack(rows)


def condense_shadows(
    images: LabeledImages,
    members: Members,
    study: Study,
    redistill: Redistill,
    *,
    seed: Seed,
    watch: Watch = silent,
) -> Shadows:
    """Condense the members of each row of `members`, and look at all images."""
    near, probable = [], []
    pixels = normalise(images.images, study.image)
    for number, member in enumerate(members):
        own = seed.child(f"shadow-{number}")
        arrays = redistill(images.select(torch.from_numpy(np.flatnonzero(member))), own)
        near.append(nearness(arrays, images, study))
        probable.append(true_class_probability(arrays, pixels, images.labels, study, seed=own))
        watch(Step("condensing shadows", number + 1, len(members)))
    return Shadows(members, np.stack(near), np.stack(probable))


def nearness(
    arrays: SyntheticArrays, images: LabeledImages, study: Study
) -> Float[np.ndarray, " n"]:
    """The cosine of each image to the nearest synthetic view of its class; -1 without a view."""
    view = _view(arrays, images, study)
    real = features(view.real, Space.PIXELS)
    ridge = RIDGES[Space.PIXELS]
    contrast = Contrast.of(real, images.labels, classes=len(images.classes), ridge=ridge)
    theirs = contrast.directions(real, images.labels)
    ours = contrast.directions(features(view.synthetic, Space.PIXELS), view.labels)
    near = np.full(len(images), -1.0, np.float32)
    for label in view.labels.unique().tolist():
        rows = images.labels == label
        near[rows.numpy()] = (theirs[rows] @ ours[view.labels == label].T).amax(dim=1).numpy()
    return near


def true_class_probability(
    arrays: SyntheticArrays,
    pixels: Float[Tensor, "n c h w"],
    labels: Int64[Tensor, " n"],
    study: Study,
    *,
    seed: Seed,
) -> Float64[np.ndarray, " n"]:
    """The probability of each image's class, the mean over networks trained on the set."""
    trained_on = _training_set(arrays, study.distill.partition)
    rows = torch.arange(len(labels))
    total = torch.zeros(len(labels), dtype=torch.float64)
    for number in range(MODELS):
        network = build_network(
            study.network,
            study.image,
            classes=len(study.classes),
            generator=seed.stream(f"network-{number}"),
        )
        train_classifier(
            network,
            [trained_on],
            steps=MODEL_STEPS,
            families=[str(family) for family in study.evaluation.families],
            generator=seed.stream(f"training-{number}"),
            rate=arrays.student_rate or RATE,
        )
        total += predict(network, pixels)[rows, labels].double()
    return (total / MODELS).numpy()


def _training_set(arrays: SyntheticArrays, partition: int) -> TrainingSet:
    parts = partition * partition
    return TrainingSet(
        expand_partitions(torch.from_numpy(arrays.images), partition),
        expand_labels(_labels(arrays), partition),
        MODEL_BATCH,
        None if arrays.soft is None else torch.from_numpy(arrays.soft).repeat(parts, 1),
    )


def _view(arrays: SyntheticArrays, images: LabeledImages, study: Study) -> View:
    """Synthetic and real images in the kind in which the set would show a patient."""
    kind = shown_by(study.distill.partition)
    shown = views(
        torch.from_numpy(arrays.images),
        _labels(arrays),
        normalise(images.images, study.image),
        partition=study.distill.partition,
    )
    return next(view for view in shown if view.kind is kind)


def _labels(arrays: SyntheticArrays) -> Int64[Tensor, " n"]:
    return torch.from_numpy(arrays.labels.astype(np.int64))
