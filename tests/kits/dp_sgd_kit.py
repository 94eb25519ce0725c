"""A few small films of three classes, and a study that asks for experts under dp-sgd."""

from __future__ import annotations

from typing import Any

import torch

from fedcondense.config.loading import parse_settings
from fedcondense.config.study import Study
from fedcondense.learning.networks import Network, build_network
from fedcondense.privacy.units import Sample, UnitImages

CLASSES = ("a", "b", "c")
FORMAL = {"mode": "dp-sgd", "epsilon": 8.0}


def dp_study(*, width: int = 4, method: str = "mtt", experts: Any = (), privacy: Any = ()) -> Study:
    """By default one expert of two epochs that sees a quarter of 24 units a step."""
    values = {
        "name": "toy",
        "classes": list(CLASSES),
        "image": {"size": 16},
        "network": {"width": width, "depth": 2},
        "images_per_class": 2,
        "quorum": 1,
        "privacy": FORMAL | dict(privacy),
        "distill": {
            "method": method,
            "iterations": 2,
            "student_steps": 2,
            "synthetic_batch": 3,
            "expert_epochs": 1,
            "max_start": 2,
            "experts": {"count": 1, "epochs": 2, "batch": 6, "rate": 0.1} | dict(experts),
        },
    }
    return parse_settings(Study, values, "toy")


def films(n: int = 24, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 (n, 1, 16, 16) with a bright row where the class says, and their labels in turn."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % len(CLASSES)
    pixels = torch.randint(0, 120, (n, 1, 16, 16), generator=generator)
    for row, label in enumerate(labels.tolist()):
        pixels[row, 0, 3 + 4 * label] += 130
    return pixels.byte(), labels


def film_units(n: int = 24) -> UnitImages:
    """Every film is a unit."""
    return UnitImages.by_image(*films(n))


def patient_units(films_each: int = 6, patients: int = 4) -> UnitImages:
    """Every patient has so many films, of all classes."""
    names = [f"patient {row // films_each}" for row in range(films_each * patients)]
    return UnitImages.by_patient(*films(films_each * patients), names)


def fresh_network(study: Study, seed: int = 0) -> Network:
    generator = torch.Generator().manual_seed(seed)
    return build_network(
        study.network, study.image, classes=len(study.classes), generator=generator
    )


def batch(n: int, seed: int = 0, size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised images (n, 1, size, size) and labels."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 1, size, size, generator=generator)
    return images, torch.arange(n) % len(CLASSES)


def one_each(n: int) -> Sample:
    """All rows of a batch, each a unit."""
    return Sample(torch.arange(n), torch.arange(n), n)
