"""The report of continual learning: `report.json`, and `report.html` from the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedcondense.config.scenario import Scenario
from fedcondense.config.study import Study
from fedcondense.files.environment import RunEnvironment
from fedcondense.files.page import Page
from fedcondense.files.storage import write_json
from fedcondense.research.continual_schema import (
    ContinualFacts,
    ContinualReport,
    OrderScores,
    Spread,
    StageScores,
    StageSummary,
)
from fedcondense.research.run_root import RunRoot
from fedcondense.server.report_figures import ScoredImages
from fedcondense.server.study_facts import study_facts

PAGE = Page("fedcondense.research", "continual_report.html")


def continual_report(
    scenario: Scenario,
    study: Study,
    test: ScoredImages,
    environment: RunEnvironment,
    orders: Sequence[OrderScores],
) -> ContinualReport:
    """The report of all orders; each has the same number of stages."""
    return ContinualReport(
        study=_facts(scenario, study),
        environment=environment,
        test=test,
        curve=tuple(
            _summary(number, stages)
            for number, stages in enumerate(zip(*(o.stages for o in orders), strict=True), start=1)
        ),
        orders=tuple(orders),
        seconds=sum(stage.seconds for order in orders for stage in order.stages),
    )


def write_continual_report(directory: Path, report: ContinualReport) -> None:
    """Write `report.html`, then `report.json`. Equal arguments give equal bytes."""
    from fedcondense.research.optional_plots import stages_plot  # matplotlib takes half a second

    values = {"report": report, "plot": stages_plot(report, "stages")}
    PAGE.write(directory / "report.html", values)
    write_json(directory / "report.json", report.model_dump(mode="json"))


def read_continual_report(directory: Path) -> ContinualReport:
    """The report that `write_continual_report` wrote to `directory`."""
    return ContinualReport.model_validate_json((directory / "report.json").read_bytes())


def finished_continual(scenario: Scenario, out: Path) -> ContinualReport | None:
    """The report of a run of `scenario` that is done, or None.

    Raises:
        RunDirectoryError: see `RunRoot.claim`.
    """
    root = RunRoot(out)
    if not root.is_done():
        return None
    with root.claim(scenario):
        return read_continual_report(out)


def _summary(number: int, stages: Sequence[StageScores]) -> StageSummary:
    first = stages[0]
    return StageSummary(
        stage=number,
        seen=first.seen,
        images=first.images,
        accuracy=_spread([stage.accuracy for stage in stages]),
        balanced_accuracy=_spread([stage.balanced_accuracy for stage in stages]),
    )


def _spread(values: Sequence[float]) -> Spread:
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return Spread(mean=float(np.mean(values)), sd=sd)


def _facts(scenario: Scenario, study: Study) -> ContinualFacts:
    agreed = study_facts(study)
    return ContinualFacts(
        **agreed.model_dump(include=set(ContinualFacts.model_fields)),
        **agreed.evaluation.model_dump(exclude={"resamples"}),
        source=scenario.images.kind if scenario.images else "unknown",
        seed=study.seed,
    )
