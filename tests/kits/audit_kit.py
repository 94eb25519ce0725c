"""Hospitals whose patients are drawn by chance, sets that do or do not memorise them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fedcondense.config.loading import parse_settings
from fedcondense.config.study import Study
from fedcondense.data.dataset import LabeledImages
from fedcondense.exchange.contribution import (
    Provenance,
    SyntheticArrays,
    decode_payload,
    encode_payload,
)
from fedcondense.learning.pixels import normalise
from fedcondense.privacy.subject import Subject

CLASSES = ("a", "b")
SIZE, SHAPES = 16, 60


def audit_study(method: str = "dm", **changes: Any) -> Study:
    distill = {"method": method} | changes.pop("distill", {})
    values = {
        "name": "audited",
        "classes": list(CLASSES),
        "image": {"size": SIZE},
        "network": {"width": 4, "depth": 2},
        "images_per_class": 100,
        "quorum": 1,
        "distill": distill,
    }
    return parse_settings(Study, values | changes, "audited")


STUDY = audit_study()
PARTITIONED = audit_study("idm")


class Population:
    """Patients of two classes: smooth shapes in amounts of their own, on what all have."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        rows = np.arange(SIZE)
        smooth = np.exp(-np.square(rows[:, None] - rows) / 8)
        noise = self._random.standard_normal((SHAPES + len(CLASSES), SIZE, SIZE))
        fields = smooth @ noise @ smooth / 16
        self._shapes, self._common = fields[:SHAPES], fields[SHAPES:]
        self._patients = 0

    def admit(self, patients: int, *, films: Sequence[int] = (1, 2)) -> LabeledImages:
        """So many new patients of each class, each with one of these numbers of films."""
        images, labels, groups = [], [], []
        for label in range(len(CLASSES)):
            for _ in range(patients):
                amounts = self._random.standard_normal(SHAPES)
                self._patients += 1
                for _ in range(self._random.choice(films)):
                    images.append(self._film(label, amounts))
                    labels.append(label)
                    groups.append(f"patient {self._patients}")
        pixels = torch.from_numpy(np.stack(images)).unsqueeze(1)
        return LabeledImages(pixels, torch.tensor(labels), CLASSES, tuple(groups), None, None)

    def _film(self, label: int, amounts: np.ndarray) -> np.ndarray:
        posture = 0.15 * self._random.standard_normal(SHAPES)
        drawn = self._common[label] + 0.35 * np.tensordot(amounts + posture, self._shapes, 1)
        grain = 0.05 * self._random.standard_normal((SIZE, SIZE))
        return np.clip(128 + 50 * (drawn + grain), 0, 255).astype(np.uint8)


def decoded(images: torch.Tensor, labels: torch.Tensor, study: Study = STUDY) -> SyntheticArrays:
    """What a receiver decodes from the bytes of these images, in normalised units."""
    arrays = SyntheticArrays(
        np.ascontiguousarray(images, np.float32), labels.numpy().astype(np.uint8)
    )
    return decode_payload(encode_payload(arrays, Provenance.of(study, ()), study))


def shown(images: LabeledImages, study: Study = STUDY) -> SyntheticArrays:
    """A set that is nothing but these images."""
    return decoded(normalise(images.images, study.image), images.labels, study)


def mixed(
    images: LabeledImages, *, of: int, count: int, noise: float, seed: int = 0
) -> SyntheticArrays:
    """What a memorising distiller makes: each image the mean of a few of its class, under noise.

    `noise` is the share of noise, which is as strong as what the mean has of its own.
    """
    random = torch.Generator().manual_seed(seed)
    pixels = normalise(images.images, STUDY.image)
    made, labels = [], []
    for label in images.labels.unique():
        own = pixels[images.labels == label]
        for _ in range(count):
            mean = own[torch.randperm(len(own), generator=random)[:of]].mean(dim=0)
            strength = (mean - own.mean(dim=0)).std()
            grain = strength * torch.randn(mean.shape, generator=random)
            made.append((1 - noise) * mean + noise * grain)
            labels.append(label)
    return decoded(torch.stack(made), torch.stack(labels))


def noise_set(count: int, seed: int, study: Study = STUDY) -> SyntheticArrays:
    """Images of noise, so many of each class."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(CLASSES)).repeat_interleave(count)
    shape = (len(labels), 1, SIZE, SIZE)
    return decoded(torch.randn(shape, generator=random), labels, study)


def subject(
    arrays: SyntheticArrays, train: LabeledImages, held_out: LabeledImages, study: Study = STUDY
) -> Subject:
    return Subject(arrays, study, train, held_out)
