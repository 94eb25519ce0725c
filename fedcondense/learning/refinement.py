"""What a round after the first begins with, as plain numbers: no patient is asked for any of it."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor

from fedcondense.learning.networks import Network


@dataclass(frozen=True)
class OwnSet:
    """The site's own last set: pixels in normalised units, and what was learned beside them."""

    images: Float[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    soft: Float[Tensor, "n k"] | None = None
    student_rate: float | None = None


@dataclass(frozen=True)
class Refinement:
    """What takes the place of noise and of fresh networks; the first round has nothing of it.

    `own` is None where the site has no last set; `networks` were trained on the global synthetic
    set, and on nothing else.
    """

    own: OwnSet | None = None
    networks: tuple[Network, ...] = ()


FIRST_ROUND = Refinement()
