"""`fedcondense-simulate`: a whole federation on one machine, from images to report."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedcondense.cli.terminal import (
    ALLOCATOR,
    escape_unprintable,
    heed_stop,
    operator_errors,
    watch_on_terminal,
)
from fedcondense.errors import FedcondenseError

if TYPE_CHECKING:
    from fedcondense.config.scenario import Scenario
    from fedcondense.files.figures import Difference
    from fedcondense.progress import Watch
    from fedcondense.research.continual_schema import ContinualReport
    from fedcondense.research.report_schema import StudyReport
    from fedcondense.research.sweep_schema import Gap, SweepReport
    from fedcondense.server.report_figures import Measures, PrivacyFacts

PROGRAM = "fedcondense-simulate"

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command()
def simulate(
    scenario: Annotated[
        Path,
        typer.Argument(
            metavar="SCENARIO.toml", readable=False, help="the study, its images and its sites"
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="images: a folder of class folders, a CSV or an npz"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="run directory; runs/<scenario> if left out"),
    ] = None,
) -> None:
    """Play a whole study on this machine: every hospital, the server, the report.

    On the same directory, an interrupted run goes on, a finished one shows its scores. The cells
    of a [sweep] are shared among all commands that are given the same directory at once.
    """
    with operator_errors(PROGRAM):
        _simulate(scenario, data, out if out is not None else Path("runs") / scenario.stem)


def main() -> None:
    """Entry point of the command."""
    escape_unprintable()
    heed_stop()
    app()


def _simulate(scenario: Path, data: Path | None, directory: Path) -> None:
    from fedcondense.config.scenario import load_scenario  # --help waits for none of these

    loaded = load_scenario(scenario, data)
    os.environ.update(ALLOCATOR)
    if loaded.continual is not None:
        _play_stages(loaded, directory)
    elif loaded.sweep is None:
        _play_one(loaded, directory)
    else:
        _play_cells(loaded, directory)


def _play_one(scenario: Scenario, directory: Path) -> None:
    from fedcondense.research.run_root import finished_report

    report = finished_report(scenario, directory)
    if report is not None:
        Console().print("This run is done; its scores:")
    else:
        with watch_on_terminal() as watch:
            from fedcondense.research.scenario_run import simulate as play  # torch takes seconds

            report = play(scenario, directory, watch=watch)
    _show(report, directory)


def _play_stages(scenario: Scenario, directory: Path) -> None:
    from fedcondense.research.continual_report import finished_continual

    report = finished_continual(scenario, directory)
    if report is not None:
        Console().print("This run is done; its scores:")
    else:
        with watch_on_terminal() as watch:
            from fedcondense.research.continual import evaluate_continual

            report = evaluate_continual(scenario, directory, watch=watch)
    _show_stages(report, directory)


def _play_cells(scenario: Scenario, directory: Path) -> None:
    from fedcondense.config.cells import cells_of

    cells_of(scenario)  # a wrong cell is told before anything heavy is loaded
    from fedcondense.research.sweep import finished_sweep, simulate_sweep

    report = finished_sweep(scenario, directory)
    if report is not None:
        Console().print("This sweep is done; its scores:")
    else:
        try:
            report = simulate_sweep(scenario, directory, screen=_cell_on_terminal)
        except FedcondenseError:
            _say_where(directory)  # it names the cells that failed, and shows the others
            raise
    _show_cells(report, directory)


@contextmanager
def _cell_on_terminal(title: str) -> Iterator[Watch]:
    Console(stderr=True).print(title, highlight=False, soft_wrap=True)
    with watch_on_terminal() as watch:
        yield watch


def _show_stages(report: ContinualReport, directory: Path) -> None:
    console = Console()
    table = Table("stage", "classes seen", "stored images", "accuracy")
    for stage in report.curve:
        accuracy = f"{stage.accuracy.mean:.3f} ± {stage.accuracy.sd:.3f}"
        table.add_row(str(stage.stage), str(stage.seen), str(stage.images), accuracy)
    console.print(table)
    console.print(f"report: {directory / 'report.html'}", soft_wrap=True)


def _show_cells(report: SweepReport, directory: Path) -> None:
    console = Console()
    table = Table(*report.axes, "global set", "ceiling", "gain of joining")
    for cell in report.cells:
        if cell.results is not None:
            scores = cell.results.scores
            table.add_row(
                *cell.choices.values(),
                f"{scores.global_set.mean:.3f} ± {scores.global_set.sd:.3f}",
                f"{scores.ceiling.mean:.3f} ± {scores.ceiling.sd:.3f}",
                _gain(scores.joining),
            )
    console.print(table)
    for privacy in {cell.privacy.model_dump_json(): cell.privacy for cell in report.cells}.values():
        console.print(_guarantee(privacy))
    _say_where(directory)


def _say_where(directory: Path) -> None:
    if (directory / "report.html").exists():
        Console().print(f"report: {directory / 'report.html'}", soft_wrap=True)


def _guarantee(privacy: PrivacyFacts) -> str:
    if privacy.epsilon is None:
        return f"privacy mode {privacy.mode}: no formal guarantee"
    limits = f"epsilon {privacy.epsilon:g}, delta {privacy.delta:g}, unit {privacy.unit}"
    return f"privacy mode {privacy.mode}: {limits}"


def _show(report: StudyReport, directory: Path) -> None:
    console = Console()
    table = Table("trained on", "images", "balanced accuracy", "AUROC")
    for name, measures, images in _rows(report):
        accuracy, area = measures.balanced_accuracy, measures.auroc
        interval = (
            f"{accuracy.mean:.3f} ± {accuracy.sd:.3f}  ({accuracy.low:.3f}-{accuracy.high:.3f})"
        )
        table.add_row(name, images, interval, f"{area.mean:.3f}")
    console.print(table)
    console.print(f"what joining is worth to a site: {_gain(report.gains.joining.mean)}")
    console.print(
        f"global set against random real images: {_gain(report.gains.global_minus_random_real)}"
    )
    console.print(_guarantee(report.study.privacy))
    _say_where(directory)


def _rows(report: StudyReport) -> list[tuple[str, Measures, str]]:
    scores = report.scores
    sets = {
        "all real images (ceiling)": scores.ceiling,
        "global synthetic set": scores.global_set,
        "random real, same number": scores.random_real,
        "random real, expanded": scores.random_real_expanded,
    }
    rows: list[tuple[str, Measures, str]] = [
        (name, found, f"{found.images:.0f}") for name, found in sets.items()
    ]
    if len(report.repetitions) == 1:
        for one in report.repetitions[0].rounds:
            of_round = one.scores.global_set
            rows.append((f"global set of round {one.round}", of_round, f"{of_round.images:.0f}"))
    rows.append(("alone (mean of sites)", scores.site_alone.mean, ""))
    rows.append(("joined (mean of sites)", scores.site_joined.mean, ""))
    return rows


def _gain(gain: Difference | Gap) -> str:
    points = [100 * value for value in (gain.difference, gain.low, gain.high)]
    return "{:+.1f} points (95 % {:+.1f} to {:+.1f})".format(*points)
