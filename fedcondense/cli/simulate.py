"""`fedcondense-simulate`: a whole federation on one machine, from images to report."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedcondense.cli.terminal import operator_errors, watch_on_terminal

if TYPE_CHECKING:
    from fedcondense.research.report_schema import Difference, Measures, StudyReport

PROGRAM = "fedcondense-simulate"
# Large tensors stay on the heap: returning them to the system after each step is slow, by how much
# `make bench` prints.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "8589934592"}

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command()
def simulate(
    scenario: Annotated[
        Path, typer.Argument(metavar="SCENARIO.toml", help="the study, its images and its sites")
    ],
    data: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="images: a folder of class folders, or an npz"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="run directory; runs/<scenario> if left out"),
    ] = None,
) -> None:
    """Play a whole study on this machine: every hospital, the server, the report.

    On the same directory, an interrupted run goes on, a finished one shows its scores.
    """
    with operator_errors(PROGRAM):
        _simulate(scenario, data, out if out is not None else Path("runs") / scenario.stem)


def main() -> None:
    """Entry point of the command."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service stop is a Ctrl-C
    app()


def _simulate(scenario: Path, data: Path | None, directory: Path) -> None:
    from fedcondense.config.scenario import load_scenario  # --help waits for none of these
    from fedcondense.research.run_root import finished_report

    loaded = load_scenario(scenario, data)
    os.environ.update(ALLOCATOR)
    report = finished_report(loaded, directory)
    if report is not None:
        Console().print("This run is done; its scores:")
    else:
        with watch_on_terminal() as watch:
            from fedcondense.research.scenario_run import simulate as play  # torch takes seconds

            report = play(loaded, directory, watch=watch)
    _show(report, directory)


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
    console.print(f"report: {directory / 'report.html'}", soft_wrap=True)


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
    rows.append(("alone (mean of sites)", scores.site_alone.mean, ""))
    rows.append(("joined (mean of sites)", scores.site_joined.mean, ""))
    return rows


def _gain(gain: Difference) -> str:
    points = [100 * value for value in (gain.difference, gain.low, gain.high)]
    return "{:+.1f} points (95 % {:+.1f} to {:+.1f})".format(*points)
