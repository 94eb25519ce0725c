"""The figures that every report of a study has: scores, test set, global set, and their words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
from jaxtyping import Float
from pydantic import Field, model_validator

from fedcondense.config.privacy import FormalPrivacy, Privacy
from fedcondense.config.study import Architecture, NetworkSpec
from fedcondense.files.figures import Amount, Estimate, Figures, Share, Sparse
from fedcondense.learning import scores
from fedcondense.learning.scores import Resampled

ARCHITECTURES = {
    Architecture.CONVNET: "ConvNet",
    Architecture.ALEXNET: "AlexNet",
    Architecture.VGG11: "VGG11",
    Architecture.RESNET18: "ResNet18",
}


class Measures(Figures):
    """How well classifiers do; `confusion` has a row per true class, which sums to 1.

    A class without a test image has the recall None and a row of zeros.
    """

    balanced_accuracy: Estimate
    accuracy: Estimate
    macro_f1: Estimate
    auroc: Estimate
    sensitivity_at_90_specificity: Estimate
    calibration_error: Estimate
    per_class_recall: dict[str, Share | None]
    confusion: tuple[tuple[float, ...], ...]
    networks: int = Field(ge=1)

    @model_validator(mode="after")
    def _square(self) -> Measures:
        classes = len(self.per_class_recall)
        if [len(row) for row in self.confusion] != [classes] * classes:
            raise ValueError("confusion: one row and one column for each class of per_class_recall")
        return self


class SetScores(Measures):
    """Measures of classifiers trained on one set.

    `images` are stored images, `views` the images after partition and expansion that a network
    sees; both are means where repetitions differ.
    """

    images: Amount
    views: Amount


class ScoredImages(Figures):
    """The images that scores are read on; `class_counts` names every class of the study."""

    name: str = Field(description="test, validation, or the name of an external set")
    images: int = Field(ge=1)
    groups: int = Field(ge=1)
    class_counts: dict[str, int]


class PrivacyFacts(Sparse):
    """What a study asks of a release; under `none` there is nothing but the mode.

    An `epsilon` never stands without its `delta` and without the `unit` that it is about.
    """

    mode: str = "none"
    epsilon: float | None = None
    delta: float | None = None
    unit: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> PrivacyFacts:
        absent = [value is None for value in (self.epsilon, self.delta, self.unit)]
        if any(absent) != (self.mode == "none") or any(absent) != all(absent):
            raise ValueError("privacy: epsilon, delta and unit stand together, or in mode none not")
        return self


class GlobalSetFigures(Figures):
    """The global synthetic set; `classes` are those that it holds."""

    sha256: str
    images: int = Field(ge=0)
    classes: tuple[str, ...]


def privacy_facts(asked: Privacy) -> PrivacyFacts:
    """What a study asks for, in the figures of a report."""
    if not isinstance(asked, FormalPrivacy):
        return PrivacyFacts()
    return PrivacyFacts(
        mode=asked.mode, epsilon=asked.epsilon, delta=asked.delta, unit=asked.unit.value
    )


def measures_of(scored: Resampled, classes: Sequence[str]) -> Measures:
    """The figures of networks on one test set, with their intervals."""
    shares = row_shares(scored.confusion)
    estimates = {k: Estimate(**asdict(v)) for k, v in scored.estimates().items()}
    return Measures(
        **estimates,
        per_class_recall=recalls_of(shares, classes),
        confusion=shares,
        networks=scored.values.shape[1],
    )


def row_shares(counts: Float[np.ndarray, "k k"]) -> tuple[tuple[float, ...], ...]:
    """A confusion matrix of counts as shares of its rows; an empty row stays a row of zeros."""
    return tuple(tuple(float(share) for share in row) for row in scores.row_shares(counts))


def recalls_of(
    confusion: Sequence[Sequence[float]], classes: Sequence[str]
) -> Mapping[str, float | None]:
    """The diagonal of row shares by class name; None for an empty row."""
    return {name: confusion[i][i] if any(confusion[i]) else None for i, name in enumerate(classes)}


def network_text(network: NetworkSpec) -> str:
    """A network in a reader's words."""
    if network.architecture is Architecture.CONVNET:
        return f"ConvNet with {network.depth} blocks of {network.width} channels"
    return ARCHITECTURES[network.architecture]
