"""Every figure of continual learning: these models are the schema of its `report.json`.

What each figure means stands in docs/ref-report.md.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedcondense.files.environment import RunEnvironment
from fedcondense.files.figures import Figures, Share
from fedcondense.server.report_figures import ScoredImages


class Spread(Figures):
    """Mean and standard deviation over orders of the classes; `sd` is 0 for a single order."""

    mean: Share
    sd: float = Field(ge=0)


class StageScores(Figures):
    """One stage of one order, means over its networks.

    `new` are the classes that came in it, `seen` counts all classes so far, `images` the stored
    images of the memory, `tested` the test images of the classes seen.
    """

    new: tuple[str, ...]
    seen: int = Field(ge=1)
    images: int = Field(ge=1)
    tested: int = Field(ge=1)
    accuracy: Share
    balanced_accuracy: Share
    seconds: float = Field(ge=0)


class OrderScores(Figures):
    """One order of the classes, stage by stage."""

    stages: tuple[StageScores, ...] = Field(min_length=1)


class StageSummary(Figures):
    """One stage over all orders."""

    stage: int = Field(ge=1)
    seen: int = Field(ge=1)
    images: int = Field(ge=1)
    accuracy: Spread
    balanced_accuracy: Spread


class ContinualFacts(Figures):
    """What was learned in stages, and how; `steps` is None for the papers' 1,001 epochs."""

    name: str
    source: str
    classes: tuple[str, ...]
    method: str
    preset: str
    start: str
    iterations: int
    images_per_class: int
    partition: int
    image_size: int
    channels: int
    network: str
    networks: int
    length: Literal["short", "paper"]
    steps: int | None
    batch: int
    seed: int
    digest: str


class ContinualReport(Figures):
    """The whole report."""

    version: Literal[1] = 1
    study: ContinualFacts
    environment: RunEnvironment
    test: ScoredImages
    curve: tuple[StageSummary, ...]
    orders: tuple[OrderScores, ...] = Field(min_length=1)
    seconds: float = Field(ge=0)
