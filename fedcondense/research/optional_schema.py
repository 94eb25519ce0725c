"""Figures of a study report that only some scenarios ask for: parts of `report.json`."""

from __future__ import annotations

from pydantic import Field, model_validator

from fedcondense.files.figures import Amount, Difference, Estimate, Figures, Share


class NetworkScore(Figures):
    """How networks of one architecture do that were trained on one set."""

    balanced_accuracy: Estimate
    accuracy: Estimate
    networks: int = Field(ge=1)


class ArchitectureScores(Figures):
    """Every set in the eyes of one architecture; `sets` by name, as the keys of `scores`."""

    sets: dict[str, NetworkScore]
    global_minus_random_real: Difference


class CrossArchitecture(Figures):
    """The set condensed with one architecture, tested with several: one row of a matrix."""

    condensed_with: str
    tested_with: dict[str, ArchitectureScores]


class Consistency(Figures):
    """Shares of the `nearest` k real training images that have an image's own class.

    Of the views of the global set and, for comparison, of real images that were not trained on.
    `real_images` counts the class-balanced training images that are looked among.
    """

    nearest: tuple[int, ...] = Field(min_length=1)
    synthetic: tuple[Share, ...]
    unseen_real: tuple[Share, ...]
    real_images: Amount
    views: Amount

    @model_validator(mode="after")
    def _one_length(self) -> Consistency:
        if not len(self.nearest) == len(self.synthetic) == len(self.unseen_real):
            raise ValueError("consistency: one share of each kind for each of `nearest`")
        return self
