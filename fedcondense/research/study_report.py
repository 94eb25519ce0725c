"""The study report of a simulation: `report.json`, and `report.html` from the same numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedcondense.files.figures import Difference, Estimate
from fedcondense.files.galleries import SetPictures, galleries
from fedcondense.files.page import Page
from fedcondense.files.storage import write_json
from fedcondense.privacy.plain_words import REFUSALS
from fedcondense.research.gate_schema import FailedSite, SiteGate
from fedcondense.research.report_schema import Repetition, SiteFigures, StudyReport
from fedcondense.server.report_figures import ARCHITECTURES

PAGE = Page("fedcondense.research", "study_report.html")


def write_study_report(directory: Path, report: StudyReport, pictures: SetPictures) -> None:
    """Write `report.html`, then `report.json`, which marks completion.

    `pictures` is the global set of the first repetition. Equal arguments give equal bytes.
    """
    PAGE.write(directory / "report.html", page_values(report, pictures))
    write_json(directory / "report.json", report.to_json())


def read_study_report(directory: Path) -> StudyReport:
    """The report that `write_study_report` wrote to `directory`."""
    return StudyReport.model_validate_json((directory / "report.json").read_bytes())


@dataclass(frozen=True)
class WeakestSite:
    """The site that does worst alone in one repetition, and what joining gives it."""

    seed: int
    name: str
    alone: Estimate
    gain: Difference | None


def judgement(difference: Difference) -> Literal["more", "less", "open"]:
    """What a paired interval allows to say: open where it holds zero."""
    if difference.low > 0:
        return "more"
    return "less" if difference.high < 0 else "open"


def weakest_site(repetition: Repetition) -> WeakestSite:
    """The site with the lowest mean balanced accuracy alone."""
    sites = repetition.scores.site_alone.sites
    name = min(sites, key=lambda site: sites[site].balanced_accuracy.mean)
    gain = repetition.gains.joining.sites.get(name)
    return WeakestSite(repetition.seed, name, sites[name].balanced_accuracy, gain)


def gates_of_report(report: StudyReport) -> list[SiteGate]:
    """The gate's answers to all sites that came as far as asking it."""
    sites: list[SiteFigures | FailedSite] = [*report.sites, *report.failed_sites]
    return [
        SiteGate(name=site.name, seed=report.repetitions[site.repetition].seed, gate=site.gate)
        for site in sites
        if site.gate is not None
    ]


def page_values(report: StudyReport, pictures: SetPictures) -> dict[str, object]:
    """What the template shows besides the report: drawings, pictures and what is largest."""
    from fedcondense.research.report_plots import drawings  # matplotlib takes half a second

    gates = gates_of_report(report)
    return {
        "report": report,
        "judge": judgement,
        "weakest": [weakest_site(repetition) for repetition in report.repetitions],
        "largest": max(report.sites, key=lambda site: site.sealed_bytes),
        "refusals": refusals_in_words(),
        "statements": sorted({site.gate.statement for site in report.sites} - {""}),
        "passed": sum(not site.gate.problems for site in gates),
        "asked": len(gates),
        "galleries": galleries(pictures),
        "architectures": {name.value: text for name, text in ARCHITECTURES.items()},
        **drawings(report),
    }


def refusals_in_words() -> dict[str, str]:
    """Why a gate refuses, as people say it, by the word of the record."""
    return {refusal.value: words for refusal, words in REFUSALS.items()}
