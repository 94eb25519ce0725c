"""What a study asks of differential privacy, and what a site declares and is ready to spend."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from fedcondense.config.loading import Settings

Epsilon = Annotated[float, Field(gt=0, le=100)]
Delta = Annotated[float, Field(gt=0, le=1e-2)]


class Unit(StrEnum):
    """Whose presence is hidden: all images of a patient, or one image."""

    PATIENT = "patient"
    IMAGE = "image"


class NoPrivacy(Settings):
    """Mode `none`: no formal guarantee; the site's ledger gets an unbounded row."""

    mode: Literal["none"] = Field("none", description="no differential privacy")


class FormalPrivacy(Settings):
    """An (epsilon, delta) that a site spends in one study, over all its rounds."""

    epsilon: Epsilon = Field(description="most that the whole study may cost a site")
    delta: Delta = Field(1e-5, description="below one in the number of patients")
    unit: Unit = Field(
        Unit.IMAGE, description="patient only where every image names its patient, else image"
    )


class DpEmbed(FormalPrivacy):
    """Mode `dp-embed`, for dm and idm: class sums of embeddings, noised once, matched for long.

    Another algorithm than dm and idm: fixed maps, normalised embeddings, no siamese real side.
    """

    mode: Literal["dp-embed"] = Field(description="class embeddings with noise, drawn once")
    maps: int = Field(32, ge=1, le=1_000, description="R: random networks from the public seed")
    count_weight: float = Field(
        0.25, gt=0, le=1, description="w: the coordinate in which noisy class counts ride along"
    )
    views: int = Field(
        1, ge=1, le=64, description="publicly seeded transforms of a record that are averaged"
    )


class DpSgd(FormalPrivacy):
    """Mode `dp-sgd`, for mtt and pruned-mtt: experts trained with DP-SGD (Abadi et al. 2016)."""

    mode: Literal["dp-sgd"] = Field(description="experts trained with clipped, noised gradients")
    clip: float = Field(1.0, gt=0, le=1_000, description="C: bound on a unit's gradient")
    images_per_patient: int = Field(
        4, ge=1, le=64, description="most images that one patient gives; unit patient only"
    )
    averaging: float = Field(
        0.9, ge=0, lt=1, description="decay of the average of iterates that is recorded; 0: none"
    )


Privacy = Annotated[NoPrivacy | DpEmbed | DpSgd, Field(discriminator="mode")]

METHODS_OF: dict[str, frozenset[str]] = {
    "dp-embed": frozenset({"dm", "idm"}),
    "dp-sgd": frozenset({"mtt", "pruned-mtt"}),
}


class Budget(Settings):
    """The most that all studies together may cost the patients of one population."""

    epsilon: Epsilon = Field(description="most that all rows of the ledger may come to")
    delta: Delta = Field(1e-5, description="the delta at which they are composed")
    unit: Unit = Field(Unit.IMAGE, description="whose presence the budget protects")


class Declared(Settings):
    """Numbers that the site makes public; noise is planned from them, before an image is read."""

    images: int = Field(ge=1, description="images that the site may use for a study")
    patients: int | None = Field(None, ge=1, description="their patients; needed by unit patient")

    def units(self, unit: Unit) -> int | None:
        """How many there are of what a study hides; none where the site does not say."""
        return self.patients if unit is Unit.PATIENT else self.images
