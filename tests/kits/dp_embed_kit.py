"""A study under dp-embed on the few small films of `dp_sgd_kit`, and what it is charged."""

from __future__ import annotations

from typing import Any

from dp_sgd_kit import CLASSES

from fedcondense.config.loading import parse_settings
from fedcondense.config.study import Study
from fedcondense.privacy.accounting import Mechanism


def embed_study(*, method: str = "dm", privacy: Any = (), **other: Any) -> Study:
    """Three classes at 16 pixels, two maps of the narrowest network."""
    values = {
        "name": "toy",
        "classes": list(CLASSES),
        "image": {"size": 16},
        "network": {"width": 4, "depth": 2},
        "images_per_class": 2,
        "quorum": 1,
        "privacy": {"mode": "dp-embed", "epsilon": 8.0, "maps": 2} | dict(privacy),
        "distill": {"method": method, "iterations": 3},
    }
    return parse_settings(Study, values | other, "toy")


def row(sigma: float | None = 0.5, **other: Any) -> Mechanism:
    """The row that pays for one release of class embeddings."""
    return Mechanism("class-embeddings", sigma, **other)
