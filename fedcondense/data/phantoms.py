"""Procedural chest phantoms: the embedded default, so that a first run needs no download.

A score on phantoms is never a claim about patients. Every patient, film and scanner draws from
its own seeded generator: equal settings give equal bytes, and more images leave the first ones
as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from fedcondense.config.site import Phantoms
from fedcondense.data.anatomy import draw_absorption, draw_anatomy, draw_frame, draw_lung
from fedcondense.data.dataset import LabeledImages
from fedcondense.data.findings import PAINTERS, draw_finding, paint_finding
from fedcondense.data.scanners import Scanner, draw_scanner, expose
from fedcondense.progress import Step, Watch, silent

PHANTOM_CLASSES = tuple(PAINTERS)
FILMS = (1, 1, 1, 2, 3)  # of a patient, equally likely
TEST_PATIENTS = (1, 4, 7)  # of each ten; patients are exchangeable, so any three would do


@dataclass(frozen=True)
class _Patient:
    label: int
    number: int
    scanner: Scanner

    @property
    def group(self) -> str:
        return f"{PHANTOM_CLASSES[self.label]}-{self.number}"

    @property
    def split(self) -> str:
        return "test" if self.number % 10 in TEST_PATIENTS else "train"


def draw_phantoms(source: Phantoms, watch: Watch = silent) -> LabeledImages:
    """Draw `source.images_per_class` films of each class, (1, size, size) each.

    Groups are patients, sites are scanners. The scanner is dealt within each class, so that its
    look carries no label; the split is given, three patients of ten are test.
    """
    scanners = [draw_scanner(number + 1, source.seed) for number in range(source.scanners)]
    films, patients = [], []
    total = source.images_per_class * len(PHANTOM_CLASSES)
    for label in range(len(PHANTOM_CLASSES)):
        for patient, film in _films_of_class(source, label, scanners):
            films.append(film)
            patients.append(patient)
            watch(Step("drawing phantoms", len(films), total))
    return LabeledImages(
        torch.from_numpy(np.stack(films)).unsqueeze(1),
        torch.tensor([patient.label for patient in patients]),
        PHANTOM_CLASSES,
        tuple(patient.group for patient in patients),
        tuple(patient.scanner.name for patient in patients),
        tuple(patient.split for patient in patients),
    )


def _films_of_class(
    source: Phantoms, label: int, scanners: list[Scanner]
) -> Iterator[tuple[_Patient, np.ndarray]]:
    drawn = number = 0
    while drawn < source.images_per_class:
        rng = np.random.default_rng((source.seed, 2, label, number))
        block, place = divmod(number, len(scanners))
        order = np.random.default_rng((source.seed, 3, label, block)).permutation(len(scanners))
        patient = _Patient(label, number, scanners[order[place]])
        films = min(int(rng.choice(FILMS)), source.images_per_class - drawn)
        for film in _films_of_patient(source, patient, rng, films):
            yield patient, film
        drawn += films
        number += 1


def _films_of_patient(
    source: Phantoms, patient: _Patient, rng: np.random.Generator, films: int
) -> Iterator[np.ndarray]:
    anatomy = draw_anatomy(rng)
    shape = (source.seed, 4, patient.label, patient.number)
    finding = draw_finding(PHANTOM_CLASSES[patient.label], rng, shape)
    for _ in range(films):
        frame = draw_frame(rng, source.size)
        lungs = draw_lung(anatomy, frame, -1), draw_lung(anatomy, frame, 1)
        absorption = draw_absorption(anatomy, frame, lungs) + paint_finding(finding, lungs)
        yield expose(absorption, patient.scanner, rng)
