"""Every figure of a study report: these models are the schema of `report.json`.

What each figure means stands in docs/ref-report.md. The page shows these numbers and no others.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from fedcondense.config.scenario import ReleaseMode
from fedcondense.files.environment import RunEnvironment
from fedcondense.files.figures import Difference, Figures, Share
from fedcondense.research.gate_schema import FailedSite, Gate
from fedcondense.research.optional_schema import Consistency, CrossArchitecture
from fedcondense.server import report_schema
from fedcondense.server.report_figures import (
    GlobalSetFigures,
    Measures,
    ScoredImages,
    SetScores,
)
from fedcondense.server.report_schema import Round

LONGEST_CURVE = 200


class SiteScores(Figures):
    """Scores by site, and the mean over sites (its confusion is the mean of the sites' rows)."""

    sites: dict[str, SetScores]
    mean: Measures


class Scores(Figures):
    """Everything that is compared, on one test set."""

    global_set: SetScores = Field(validation_alias="global", serialization_alias="global")
    ceiling: SetScores
    random_real: SetScores
    random_real_expanded: SetScores
    site_alone: SiteScores
    site_joined: SiteScores


class Joining(Figures):
    """What joining is worth: site_joined - site_alone, by site and as the mean over sites."""

    sites: dict[str, Difference]
    mean: Difference


class Gains(Figures):
    """The differences that the study is about."""

    joining: Joining
    global_minus_random_real: Difference
    global_minus_random_real_expanded: Difference


class External(Figures):
    """The same scores on a second test set, from which nothing was trained."""

    test: ScoredImages
    scores: Scores
    gains: Gains


class SiteFigures(Figures):
    """One site of one repetition that contributed."""

    name: str
    repetition: int = Field(ge=0, description="index in `repetitions`")
    images: int = Field(ge=0)
    groups: int = Field(ge=0)
    class_counts: dict[str, int]
    left_out: tuple[str, ...] = ()
    synthetic_images: int = Field(ge=0)
    sealed_bytes: int = Field(ge=0)
    real_bytes: int = Field(ge=0)
    seconds: float = Field(ge=0)
    peak_megabytes: float = Field(ge=0)
    gate: Gate
    payload_sha256: str
    signing_key: str = Field(description="fingerprint of the site's signing key")
    curve: dict[str, tuple[int | float | None, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_length(self) -> SiteFigures:
        lengths = {len(values) for values in self.curve.values()}
        if self.curve and ("iteration" not in self.curve or len(lengths) > 1):
            raise ValueError("curve: `iteration` and every figure have equally many values")
        if max(lengths, default=0) > LONGEST_CURVE:
            raise ValueError(f"curve: at most {LONGEST_CURVE} values")
        return self


class Seconds(Figures):
    """Wall-clock time of the stages, one after another; docs/ref-report.md draws the borders."""

    start_up: float = Field(ge=0)
    condense: float = Field(ge=0)
    federation: float = Field(ge=0)
    evaluation: float = Field(ge=0)
    total: float = Field(ge=0)


class Repetition(Figures):
    """One partition seed, from dealing the images to the scores.

    Scores, sites and global set are those of the last round; `rounds` has the global set of each
    where there were several.
    """

    seed: int
    study_digest: str
    sites: tuple[SiteFigures, ...]
    failed_sites: tuple[FailedSite, ...] = ()
    seconds: Seconds
    global_set: GlobalSetFigures
    scores: Scores
    gains: Gains
    external: External | None = None
    cross_architecture: CrossArchitecture | None = None
    consistency: Consistency | None = None
    rounds: tuple[Round, ...] = ()


class EvaluationFacts(report_schema.EvaluationFacts):
    """How every set was scored."""

    synthetic_share: Share
    synthetic_until: Share = 1.0
    random_draws: int


class StudyFacts(report_schema.StudyFacts):
    """What was studied; `digest` is that of the first repetition, each has its own."""

    source: str = Field(description="where the images came from: phantoms, folder or npz")
    evaluation: EvaluationFacts
    dealing: str = Field(description="how training images were dealt to sites")
    seeds: tuple[int, ...]


class Release(Figures):
    """Whether the gate could stop a contribution, and the purpose that contributions carry."""

    mode: ReleaseMode
    purpose: Literal["release", "simulation"]


class StudyReport(Figures):
    """The whole report. `research.study_report.assemble` makes one from its repetitions."""

    version: Literal[1] = 1
    study: StudyFacts
    environment: RunEnvironment
    release: Release
    test: ScoredImages
    notes: tuple[str, ...] = ()
    scores: Scores
    gains: Gains
    external: External | None = None
    cross_architecture: CrossArchitecture | None = None
    consistency: Consistency | None = None
    sites: tuple[SiteFigures, ...]
    failed_sites: tuple[FailedSite, ...]
    seconds: Seconds
    global_set: GlobalSetFigures
    repetitions: tuple[Repetition, ...] = Field(min_length=1)

    def to_json(self) -> dict[str, Any]:
        """The values of `report.json`; what was not measured is absent, not null."""
        values: dict[str, Any] = self.model_dump(mode="json", by_alias=True)
        for part in (values, *values["repetitions"]):
            for name in ("external", "cross_architecture", "consistency"):
                if part[name] is None:
                    del part[name]
        for repetition in values["repetitions"]:
            if not repetition["rounds"]:
                del repetition["rounds"]
        return values
