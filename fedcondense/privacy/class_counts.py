"""How many units of each class a site has, with noise: the only form in which that may be used."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from fedcondense.learning.randomness import secret_normal
from fedcondense.privacy.units import Records, UnitImages

MECHANISM = "class-counts"
SIGMA = 40.0  # of units; costs epsilon .095 alone at delta 1e-5


@dataclass(frozen=True)
class ClassCounts:
    """Units of each class, noised once; the numbers may be read as often as one likes."""

    noised: Float64[Tensor, " k"]

    def kept(self, least: int) -> tuple[int, ...]:
        """Classes that are not below `least`, ascending."""
        return tuple((self.noised >= least).nonzero()[:, 0].tolist())


def noised_class_counts(units: UnitImages, classes: int, *, sigma: float = SIGMA) -> ClassCounts:
    """One reading of all labels: sum over units of their mean one-hot label, plus noise.

    A patient with films in several classes counts as one in all; so a unit adds a vector of norm
    at most 1, and `sigma` is the noise's standard deviation.
    """
    clean = _histogram(units.read(MECHANISM), classes)
    return ClassCounts(clean + sigma * secret_normal(classes))


def _histogram(records: Records, classes: int) -> Float64[Tensor, " k"]:
    images = torch.bincount(records.owners, minlength=records.units).double()
    shares = 1 / images[records.owners]
    return torch.zeros(classes, dtype=torch.float64).index_add_(0, records.labels, shares)
