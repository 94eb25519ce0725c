"""Sets that the real distillers make of phantoms, from noise or from images, small and short."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from audit_kit import audit_study

from fedcondense.config.site import Phantoms
from fedcondense.config.study import Study
from fedcondense.data.dataset import LabeledImages, group_members, groups_by_class
from fedcondense.data.loading import load_images
from fedcondense.distill.methods import distill
from fedcondense.distill.source import PlainSource
from fedcondense.exchange.contribution import (
    Payload,
    Provenance,
    SyntheticArrays,
    decode_payload,
    encode_payload,
)
from fedcondense.learning.randomness import Seed

SHORT = {"iterations": 30, "real_batch": 8}
METHODS: dict[str, dict[str, Any]] = {
    "dm": SHORT,
    "idm": SHORT | {"trained_networks": 1, "training_steps": 1, "training_batch": 8},
}
PATIENTS, HELD = 51, 17  # of each class, and how many of them are held out
FORM = {"size": 24}


@dataclass(frozen=True)
class Made:
    """A set of a site, as the bytes that would leave, with whom it was made from."""

    study: Study
    payload: Payload
    train: LabeledImages
    held_out: LabeledImages
    seed: Seed

    @property
    def arrays(self) -> SyntheticArrays:
        """What a receiver decodes."""
        return decode_payload(self.payload)


def many_phantoms() -> LabeledImages:
    source = Phantoms(kind="phantoms", images_per_class=110, seed=5, size=32)
    return load_images(source, audit_study(image=FORM).image)


def made_from(phantoms: LabeledImages, method: str, start: str, seed: int, **settings: Any) -> Made:
    """Condense a site's phantoms; `settings` are the method's, in place of the short ones."""
    train, held_out = site_of(phantoms, seed)
    study = audit_study(
        classes=list(phantoms.classes),
        image=FORM,
        network={"width": 8, "depth": 2},
        images_per_class=5,
        distill={"method": method, "start": start, **METHODS[method], **settings},
    )
    source = PlainSource(train.images, train.labels, study.image)
    made = distill(source, study, seed=Seed(seed))
    arrays = SyntheticArrays(
        np.ascontiguousarray(made.images, np.float32), made.labels.numpy().astype(np.uint8)
    )
    payload = encode_payload(arrays, Provenance.of(study, ()), study)
    return Made(study, payload, train, held_out, Seed(seed))


def twenty(phantoms: LabeledImages, start: str, **settings: Any) -> list[Made]:
    """Ten sets of each method, each of another site."""
    return [
        made_from(phantoms, method, start, seed, **settings)
        for method in METHODS
        for seed in range(10)
    ]


def site_of(phantoms: LabeledImages, seed: int) -> tuple[LabeledImages, LabeledImages]:
    """Patients drawn for one site: those to learn from, and those held out."""
    random, members = np.random.default_rng(seed), group_members(phantoms)
    train, held_out = [], []
    for groups in groups_by_class(phantoms):
        patients = random.permutation(groups)[:PATIENTS]
        held_out += [row for patient in patients[:HELD] for row in members[str(patient)]]
        train += [row for patient in patients[HELD:] for row in members[str(patient)]]
    return phantoms.select(torch.tensor(train)), phantoms.select(torch.tensor(held_out))
