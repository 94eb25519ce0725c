"""The report of a sweep from the study reports of its finished cells."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fedcondense.config.cell_names import headings, method_name
from fedcondense.config.cells import Cell
from fedcondense.config.scenario import Scenario
from fedcondense.config.sweep import Reference, axes_of
from fedcondense.files.environment import this_environment
from fedcondense.files.figures import Difference
from fedcondense.research.gate_schema import SiteGate
from fedcondense.research.gates import gates_of_failure
from fedcondense.research.report_schema import Gains, Scores, StudyReport
from fedcondense.research.resamples import gap_between
from fedcondense.research.study_report import gates_of_report, read_study_report
from fedcondense.research.sweep_root import SweepRoot
from fedcondense.research.sweep_schema import (
    CellDifference,
    CellFigures,
    CellResults,
    CellScores,
    Gap,
    ReferenceFigures,
    Spread,
    SweepFacts,
    SweepReport,
)
from fedcondense.server.report_figures import Measures, privacy_facts


def sweep_report(scenario: Scenario, cells: Sequence[Cell], root: SweepRoot) -> SweepReport:
    """The report of what is finished by now."""
    reports = {cell.name: _report_of(cell, root) for cell in cells}
    finished = [report for report in reports.values() if report is not None]
    return SweepReport(
        name=scenario.name,
        source=scenario.images.kind if scenario.images else "unknown",
        seeds=scenario.seeds,
        axes=_axes(cells),
        method_axes=_method_axes(scenario),
        environment=this_environment(scenario.device, threads=1),
        facts=_facts(finished[0]) if finished else None,
        cells=tuple(_figures(cell, root, reports[cell.name]) for cell in cells),
        references=tuple(_reference(reference, cells) for reference in scenario.reference),
        differences=tuple(_differences(scenario, cells, root)),
    )


def results_of(report: StudyReport) -> CellResults:
    """What a sweep shows of one cell's study report."""
    scores = report.scores.global_set
    sites = report.sites
    return CellResults(
        scores=_scores(report),
        seeds=tuple(repetition.seed for repetition in report.repetitions),
        sites=statistics.fmean(len(repetition.sites) for repetition in report.repetitions),
        networks=scores.networks,
        images=scores.images,
        views=scores.views,
        sealed_bytes=statistics.fmean(site.sealed_bytes for site in sites),
        real_bytes=statistics.fmean(site.real_bytes for site in sites),
        condensing_seconds=statistics.fmean(site.seconds for site in sites),
        peak_megabytes=max(site.peak_megabytes for site in sites),
        failed_sites=len(report.failed_sites),
    )


def _report_of(cell: Cell, root: SweepRoot) -> StudyReport | None:
    here = root.cell(cell)
    return read_study_report(here.path) if here.is_done() else None


def _axes(cells: Sequence[Cell]) -> dict[str, tuple[str, ...]]:
    return {
        heading: tuple(dict.fromkeys(cell.choices[heading] for cell in cells))
        for heading in cells[0].choices
    }


def _method_axes(scenario: Scenario) -> tuple[str, ...]:
    axes = axes_of(scenario.sweep or {})
    names = zip(axes, headings(axes), strict=True)
    return tuple(name for axis, name in names if axis.path[0] == "distill")


def _differences(
    scenario: Scenario, cells: Sequence[Cell], root: SweepRoot
) -> Iterator[CellDifference]:
    """Later minus earlier, of finished cells that differ in the method's settings alone."""
    own = _method_axes(scenario)

    def rest(cell: Cell) -> dict[str, str]:
        return {name: choice for name, choice in cell.choices.items() if name not in own}

    finished = [cell for cell in cells if root.cell(cell).is_done()]
    for earlier, later in itertools.combinations(finished, 2):
        if rest(earlier) == rest(later):
            gap = gap_between(root.cell(later).path, root.cell(earlier).path)
            if gap is not None:
                yield CellDifference(cell=later.name, minus=earlier.name, gap=gap)


def _facts(report: StudyReport) -> SweepFacts:
    study = report.study
    return SweepFacts(
        classes=study.classes,
        evaluation=study.evaluation,
        network=study.network,
        image_size=study.image_size,
        channels=study.channels,
        dealing=study.dealing,
        release=report.release.mode,
        test=report.test,
        notes=report.notes,
    )


def _figures(cell: Cell, root: SweepRoot, report: StudyReport | None) -> CellFigures:
    failure = None if report else root.failure(cell)
    return CellFigures(
        name=cell.name,
        choices=dict(cell.choices),
        method=method_name(cell.scenario.distill, cell.scenario.privacy.mode),
        images_per_class=cell.scenario.images_per_class,
        privacy=privacy_facts(cell.scenario.privacy),
        gates=_gates(cell, root, report),
        state="done" if report else "failed" if failure else "waiting",
        failure=failure,
        results=results_of(report) if report else None,
    )


def _gates(cell: Cell, root: SweepRoot, report: StudyReport | None) -> tuple[SiteGate, ...]:
    """With the paths of the sites' pages as they are below the sweep's own directory."""
    here = root.cell(cell)
    found = gates_of_report(report) if report else gates_of_failure(here, cell.scenario.seeds)
    folder = here.path.relative_to(root.path).as_posix()
    return tuple(_below(folder, gate) for gate in found)


def _below(folder: str, of: SiteGate) -> SiteGate:
    page = f"{folder}/{of.gate.page}" if of.gate.page else ""
    return of.model_copy(update={"gate": of.gate.model_copy(update={"page": page})})


def _scores(report: StudyReport) -> CellScores:
    def spread(pick: Callable[[Scores], Measures]) -> Spread:
        return _spread(report, pick)

    def gap(pick: Callable[[Gains], Difference]) -> Gap:
        whole = pick(report.gains)
        by_seed = [pick(repetition.gains).difference for repetition in report.repetitions]
        return Gap(
            difference=whole.difference, low=whole.low, high=whole.high, by_seed=tuple(by_seed)
        )

    return CellScores(
        global_set=spread(lambda scores: scores.global_set),
        ceiling=spread(lambda scores: scores.ceiling),
        random_real=spread(lambda scores: scores.random_real),
        random_real_expanded=spread(lambda scores: scores.random_real_expanded),
        alone=spread(lambda scores: scores.site_alone.mean),
        joined=spread(lambda scores: scores.site_joined.mean),
        joining=gap(lambda gains: gains.joining.mean),
        global_minus_random_real=gap(lambda gains: gains.global_minus_random_real),
        global_minus_random_real_expanded=gap(
            lambda gains: gains.global_minus_random_real_expanded
        ),
    )


def _spread(report: StudyReport, pick: Callable[[Scores], Measures]) -> Spread:
    whole = pick(report.scores).balanced_accuracy
    by_seed = [pick(each.scores).balanced_accuracy.mean for each in report.repetitions]
    return Spread(
        mean=whole.mean,
        sd=statistics.stdev(by_seed) if len(by_seed) > 1 else whole.sd,
        low=whole.low,
        high=whole.high,
        by_seed=tuple(by_seed),
    )


def _reference(reference: Reference, cells: Sequence[Cell]) -> ReferenceFigures:
    return ReferenceFigures(
        label=reference.label,
        value=reference.value / 100,
        sd=None if reference.sd is None else reference.sd / 100,
        source=reference.source,
        beside=reference.beside,
        cells=tuple(c.name for c in cells if _holds(_values(c.scenario), reference.cell)),
        names_method="method" in reference.cell.get("distill", {}),
    )


def _values(scenario: Scenario) -> dict[str, Any]:
    return scenario.model_dump(mode="json")


def _holds(values: Any, part: Any) -> bool:
    """Whether `values` has every entry of `part`."""
    if isinstance(part, dict):
        return isinstance(values, dict) and all(
            key in values and _holds(values[key], value) for key, value in part.items()
        )
    return bool(values == part)
