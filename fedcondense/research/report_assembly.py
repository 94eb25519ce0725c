"""A study report put together from what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedcondense.config.scenario import Partition, Scenario
from fedcondense.config.study import Study
from fedcondense.files.environment import RunEnvironment
from fedcondense.progress import Step
from fedcondense.research.gate_schema import FailedSite
from fedcondense.research.optional_schema import Consistency, CrossArchitecture
from fedcondense.research.report_schema import (
    LONGEST_CURVE,
    EvaluationFacts,
    External,
    Gains,
    Release,
    Repetition,
    Scores,
    Seconds,
    SiteFigures,
    StudyFacts,
    StudyReport,
)
from fedcondense.server.report_figures import ScoredImages
from fedcondense.server.study_facts import study_facts as agreed_facts

Curve = dict[str, tuple[int | float | None, ...]]


@dataclass(frozen=True)
class Pooled:
    """Scores of several repetitions together: all their networks, intervals of the mean."""

    scores: Scores
    gains: Gains
    external: External | None = None
    cross_architecture: CrossArchitecture | None = None
    consistency: Consistency | None = None


@dataclass(frozen=True)
class Circumstances:
    """What the repetitions of one report share."""

    study: StudyFacts
    environment: RunEnvironment
    release: Release
    test: ScoredImages
    notes: tuple[str, ...] = ()


def assemble(
    circumstances: Circumstances, repetitions: Sequence[Repetition], pooled: Pooled | None = None
) -> StudyReport:
    """The report of all repetitions; times are summed, sites listed one after another.

    `pooled` is needed for several repetitions and not looked at for one, whose scores stand at
    both places.

    Raises:
        ValueError: there are several repetitions, and nothing pooled.
    """
    first = repetitions[0]
    if len(repetitions) == 1:
        pooled = Pooled(
            first.scores, first.gains, first.external, first.cross_architecture, first.consistency
        )
    if pooled is None:
        raise ValueError("several repetitions need their pooled scores")
    return StudyReport(
        study=circumstances.study,
        environment=circumstances.environment,
        release=circumstances.release,
        test=circumstances.test,
        notes=circumstances.notes,
        scores=pooled.scores,
        gains=pooled.gains,
        external=pooled.external,
        cross_architecture=pooled.cross_architecture,
        consistency=pooled.consistency,
        sites=_all_sites(repetitions),
        failed_sites=_all_failures(repetitions),
        seconds=_summed(repetitions),
        global_set=first.global_set,
        repetitions=tuple(repetitions),
    )


def _all_sites(repetitions: Sequence[Repetition]) -> tuple[SiteFigures, ...]:
    return tuple(site for repetition in repetitions for site in repetition.sites)


def _all_failures(repetitions: Sequence[Repetition]) -> tuple[FailedSite, ...]:
    return tuple(failed for repetition in repetitions for failed in repetition.failed_sites)


def _summed(repetitions: Sequence[Repetition]) -> Seconds:
    stages = Seconds.model_fields
    return Seconds(
        **{stage: sum(getattr(each.seconds, stage) for each in repetitions) for stage in stages}
    )


def study_facts(scenario: Scenario, study: Study) -> StudyFacts:
    """What was studied, in a reader's words; `study` is that of the first repetition."""
    agreed, evaluation = agreed_facts(study), study.evaluation
    return StudyFacts(
        **agreed.model_dump(exclude={"evaluation"}),
        source=scenario.images.kind if scenario.images else "unknown",
        evaluation=EvaluationFacts(
            **agreed.evaluation.model_dump(),
            synthetic_share=evaluation.synthetic_share,
            synthetic_until=evaluation.synthetic_until,
            random_draws=scenario.random_draws,
        ),
        dealing=_dealing_text(scenario.partition),
        seeds=scenario.seeds,
    )


def _dealing_text(partition: Partition) -> str:
    if partition.kind == "dirichlet":
        return f"unevenly by class (Dirichlet, alpha {partition.alpha:g})"
    return "as the data's own sites" if partition.kind == "site" else "evenly"


def curve_of(steps: Sequence[Step]) -> Curve:
    """The figures of `steps` by iteration, at most `LONGEST_CURVE` values of each.

    A longer course is cut into stretches of nearly equal length; a value is the mean over its
    stretch, at the stretch's last iteration. None: no step of the stretch has that figure.
    """
    if not steps:
        return {}
    stretches = _stretches(steps)
    names = sorted({name for step in steps for name in step.figures})
    curve: Curve = {"iteration": tuple(stretch[-1].done for stretch in stretches)}
    for name in names:
        curve[name] = tuple(_mean_figure(stretch, name) for stretch in stretches)
    return curve


def _stretches(steps: Sequence[Step]) -> list[Sequence[Step]]:
    number = min(len(steps), LONGEST_CURVE)
    ends = [len(steps) * (i + 1) // number for i in range(number)]
    return [steps[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _mean_figure(steps: Sequence[Step], name: str) -> float | None:
    values = [step.figures[name] for step in steps if np.isfinite(step.figures.get(name, np.nan))]
    return float(np.mean(values)) if values else None
