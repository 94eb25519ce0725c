"""Every figure of a server's report: these models are the schema of its `report.json`.

Keys that a study report has too mean the same there. What only the sites know is absent: a server
sees no number of images, no time, no memory, no curve of a site.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from fedcondense.files.environment import RunEnvironment
from fedcondense.files.figures import Figures
from fedcondense.server.report_figures import (
    GlobalSetFigures,
    PrivacyFacts,
    ScoredImages,
    SetScores,
)


class EvaluationFacts(Figures):
    """How the global synthetic set was scored; `steps` is absent under the papers' length."""

    networks: int
    length: Literal["short", "paper"]
    steps: int | None = None
    batch: int
    resamples: int


class StudyFacts(Figures):
    """What all sites agreed on."""

    name: str
    method: str
    preset: str
    start: str
    images_per_class: int
    partition: int = Field(description="l: one stored image carries l x l")
    iterations: int
    image_size: int
    channels: int
    network: str
    privacy: PrivacyFacts
    evaluation: EvaluationFacts
    classes: tuple[str, ...]
    quorum: int
    rounds: int = 1
    digest: str


class RunFacts(Figures):
    """Which run: its id, when it began, its deadline (UTC, ISO 8601), enrolled sites."""

    id: str
    begun: str
    deadline: str
    enrolled: int
    purpose: Literal["release"]


class Gate(Figures):
    """What the site's own gate said, in the words of its release record.

    `audits` are verdicts by name; `statement` is the sentence that goes with the set.
    """

    purpose: Literal["release", "simulation"]
    audits: dict[str, str]
    statement: str
    date: str
    software: str


class SiteFigures(Figures):
    """One contribution that was accepted; `left_out` are classes that it does not hold."""

    name: str
    round: int = Field(ge=1)
    synthetic_images: int = Field(ge=0)
    sealed_bytes: int = Field(ge=0)
    left_out: tuple[str, ...] = ()
    gate: Gate
    approved_by: tuple[str, ...] = Field(description="fingerprints of data officers' keys")
    payload_sha256: str
    signing_key: str = Field(description="fingerprint of the site's signing key")


class FailedSite(Figures):
    """A site without an accepted contribution: what became of it, and the code or reason."""

    name: str
    round: int = Field(ge=1)
    outcome: Literal["refused", "failed", "missing", "rejected"]
    code: str


class Seconds(Figures):
    """Wall-clock time at the server: opening, uniting and scoring, and all from the beginning."""

    evaluation: float = Field(ge=0)
    total: float = Field(ge=0)


class Scores(Figures):
    """The scores of classifiers trained on the global synthetic set alone."""

    global_set: SetScores = Field(validation_alias="global", serialization_alias="global")


class Round(Figures):
    """One round: who contributed and who did not, the global synthetic set, how that scores."""

    round: int = Field(ge=1)
    sites: tuple[str, ...]
    failed_sites: tuple[FailedSite, ...]
    global_set: GlobalSetFigures
    scores: Scores


class ServerReport(Figures):
    """The whole report of a deployed run; scores and global set are those of its last round."""

    version: Literal[1] = 1
    study: StudyFacts
    run: RunFacts
    environment: RunEnvironment
    test: ScoredImages
    scores: Scores
    sites: tuple[SiteFigures, ...]
    failed_sites: tuple[FailedSite, ...]
    seconds: Seconds
    global_set: GlobalSetFigures
    rounds: tuple[Round, ...] = Field(min_length=1)

    def to_json(self) -> dict[str, Any]:
        """The values of `report.json`; what there is not is absent, not null."""
        values: dict[str, Any] = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return values
