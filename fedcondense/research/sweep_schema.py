"""Every figure of a sweep's report: these models are the schema of its `report.json`.

What each figure means stands in docs/ref-sweep.md. The page shows these numbers and no others.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from fedcondense.config.scenario import ReleaseMode
from fedcondense.files.environment import RunEnvironment
from fedcondense.files.figures import Amount, Figures
from fedcondense.research.gate_schema import SiteGate
from fedcondense.research.report_schema import EvaluationFacts
from fedcondense.server.report_figures import PrivacyFacts, ScoredImages


class Failure(Figures):
    """The error that ended a cell, as the operator was told it."""

    code: str
    message: str
    hint: str


class Spread(Figures):
    """Balanced accuracy over all networks of all partition seeds.

    `by_seed` are the means over the networks of each seed, and `sd` is theirs; with one seed `sd`
    is that over its networks. The 95 % bootstrap interval is of `mean`, over groups of test images.
    """

    mean: float
    sd: float = Field(ge=0)
    low: float
    high: float
    by_seed: tuple[float, ...] = Field(min_length=1)


class Gap(Figures):
    """A paired difference of two balanced accuracies, with its 95 % bootstrap interval."""

    difference: float
    low: float
    high: float
    by_seed: tuple[float, ...] = Field(min_length=1)


class CellScores(Figures):
    """Balanced accuracy of everything compared; `alone` and `joined` are means over sites."""

    global_set: Spread = Field(validation_alias="global", serialization_alias="global")
    ceiling: Spread
    random_real: Spread
    random_real_expanded: Spread
    alone: Spread
    joined: Spread
    joining: Gap
    global_minus_random_real: Gap
    global_minus_random_real_expanded: Gap


class CellResults(Figures):
    """What a finished cell measured; bytes and seconds are means over its sites and seeds."""

    scores: CellScores
    seeds: tuple[int, ...]
    sites: Amount
    networks: int = Field(ge=1, description="of the global set, over all seeds")
    images: Amount = Field(description="stored images of the global set, mean over seeds")
    views: Amount = Field(description="images that a network sees of it, mean over seeds")
    sealed_bytes: float = Field(ge=0)
    real_bytes: float = Field(ge=0)
    condensing_seconds: float = Field(ge=0)
    peak_megabytes: float = Field(ge=0, description="of the site that took most")
    failed_sites: int = Field(ge=0)


class CellFigures(Figures):
    """One cell; `choices` are its values of the axes, in words."""

    name: str = Field(description="its folder below `cells`")
    choices: dict[str, str]
    method: str
    images_per_class: int
    privacy: PrivacyFacts = PrivacyFacts()
    gates: tuple[SiteGate, ...] = Field((), description="what the gate said to its sites")
    state: Literal["done", "failed", "waiting"]
    failure: Failure | None = None
    results: CellResults | None = None


class ReferenceFigures(Figures):
    """A published figure as a share in [0, 1], and the cells that it may be held against."""

    label: str
    value: float
    sd: float | None
    source: str
    beside: Literal["global", "ceiling", "random_real"]
    cells: tuple[str, ...]
    names_method: bool = Field(description="whether it is of the method of those cells")


class CellDifference(Figures):
    """Balanced accuracy of one cell's global set minus another's, on the same resamples.

    The two differ in the method's settings alone.
    """

    cell: str
    minus: str
    gap: Gap


class SweepFacts(Figures):
    """What the cells share, as the first finished one has it."""

    classes: tuple[str, ...]
    evaluation: EvaluationFacts
    network: str
    image_size: int
    channels: int
    dealing: str
    release: ReleaseMode
    test: ScoredImages
    notes: tuple[str, ...]


class SweepReport(Figures):
    """The whole report. `facts` is None until a cell is done."""

    version: Literal[1] = 1
    name: str
    source: str
    seeds: tuple[int, ...]
    axes: dict[str, tuple[str, ...]] = Field(description="values by heading, in words")
    method_axes: tuple[str, ...] = Field(description="headings of axes over the method's settings")
    environment: RunEnvironment
    facts: SweepFacts | None
    cells: tuple[CellFigures, ...] = Field(min_length=1)
    references: tuple[ReferenceFigures, ...] = ()
    differences: tuple[CellDifference, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The values of `report.json`."""
        return self.model_dump(mode="json", by_alias=True)
