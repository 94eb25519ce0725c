"""The page of a sweep: `report.html`, and `report.json` with the same numbers."""

from __future__ import annotations

from pathlib import Path

from fedcondense.files.page import Page
from fedcondense.files.storage import write_json
from fedcondense.research.gates import tally
from fedcondense.research.study_report import judgement, refusals_in_words
from fedcondense.research.sweep_schema import SweepReport
from fedcondense.research.sweep_tables import by_name, difference_tables, paper_tables, published

PAGE = Page("fedcondense.research", "sweep_report.html")


def write_sweep_report(directory: Path, report: SweepReport) -> None:
    """Write `report.html`, then `report.json`. Equal reports give equal bytes."""
    PAGE.write(directory / "report.html", page_values(report))
    write_json(directory / "report.json", report.to_json())


def read_sweep_report(directory: Path) -> SweepReport:
    """The report that `write_sweep_report` wrote to `directory`."""
    return SweepReport.model_validate_json((directory / "report.json").read_bytes())


def page_values(report: SweepReport) -> dict[str, object]:
    """What the template shows besides the report: tables, drawings and what was left out."""
    from fedcondense.research.sweep_plots import sweep_drawings  # matplotlib takes half a second

    return {
        "report": report,
        "judge": judgement,
        "cells": by_name(report),
        "paper_tables": paper_tables(report),
        "difference_tables": difference_tables(report),
        "published": published(report),
        "astray": [reference for reference in report.references if not reference.cells],
        "gated": any(cell.gates for cell in report.cells),
        "limits": limits_of(report),
        "tally": tally,
        "refusals": refusals_in_words(),
        **sweep_drawings(report),
    }


def limits_of(report: SweepReport) -> list[tuple[float, str]]:
    """Delta and unit of the cells that have an epsilon, each pair once."""
    found = {(cell.privacy.delta, cell.privacy.unit) for cell in report.cells}
    return sorted((delta, unit) for delta, unit in found if delta is not None and unit is not None)
