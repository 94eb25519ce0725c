"""A toy task: four classes told apart by where a soft spot lies, with patients' variation."""

from __future__ import annotations

import pytest
import torch

from fedcondense.config.loading import parse_settings
from fedcondense.config.study import Study
from fedcondense.distill.source import PlainSource

SPOTS = [(5, 5), (5, 10), (10, 5), (10, 10)]


def toy_images(per_class: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 (4 * per_class, 1, 16, 16), classes in order, and their labels.

    A broad spot tells the class, two narrow ones anywhere tell nothing: few images mislead.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(4).repeat_interleave(per_class)
    n = len(labels)
    telling = torch.tensor(SPOTS)[labels] + torch.randn(n, 2, generator=generator)
    picture = 60 * _spots(telling, 10.0)
    for _ in range(2):
        picture = picture + 90 * _spots(16 * torch.rand(n, 2, generator=generator), 4.0)
    picture = picture + 60 * torch.rand(n, 16, 16, generator=generator)
    return picture.clamp(0, 255).byte().unsqueeze(1), labels


def _spots(where: torch.Tensor, breadth: float) -> torch.Tensor:
    rows = torch.arange(16.0)
    y = (rows - where[:, :1]).square().unsqueeze(2)
    x = (rows - where[:, 1:]).square().unsqueeze(1)
    return torch.exp(-(y + x) / breadth)


def toy_study(**distill) -> Study:
    values = {
        "name": "toy",
        "classes": ["a", "b", "c", "d"],
        "image": {"size": 16},
        "network": {"width": 16, "depth": 2},
        "images_per_class": 3,
        "quorum": 1,
        "distill": {"method": "idm", "iterations": 4, "real_batch": 8, "training_batch": 8}
        | distill,
    }
    return parse_settings(Study, values, "toy")


@pytest.fixture
def source() -> PlainSource:
    return PlainSource(*toy_images(20, 0), toy_study().image)
