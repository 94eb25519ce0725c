"""The server's report: the run directory of a concluded run → `report.html`, `report.json`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from fedcondense.config.server import ServerConfig
from fedcondense.config.study import Study
from fedcondense.files.environment import this_environment
from fedcondense.files.galleries import SetPictures, galleries
from fedcondense.files.page import Page
from fedcondense.files.storage import read_json, write_json
from fedcondense.learning.scores import TestSet, resample
from fedcondense.server.aggregate import GlobalSet, read_global_set
from fedcondense.server.conclusion import device_of
from fedcondense.server.current_run import CurrentRun
from fedcondense.server.events import events
from fedcondense.server.predictions import Predictions, read_predictions
from fedcondense.server.report_figures import (
    GlobalSetFigures,
    ScoredImages,
    SetScores,
    measures_of,
)
from fedcondense.server.report_schema import (
    FailedSite,
    Gate,
    Round,
    RunFacts,
    Scores,
    Seconds,
    ServerReport,
    SiteFigures,
)
from fedcondense.server.run_directory import RunDirectory
from fedcondense.server.study_facts import study_facts

PAGE = Page("fedcondense.server", "server_report.html")


def write_report(config: ServerConfig, current: CurrentRun) -> ServerReport:
    """Write `report.html`, then `report.json`, which marks the run as finished."""
    found = assemble(config, current)
    union = read_global_set(current.run.global_set(current.rounds))
    PAGE.write(current.run.report_path, page_values(found, union))
    write_json(current.run.report_json_path, found.to_json())
    return found


def read_report(run: RunDirectory) -> ServerReport:
    """The report that `write_report` wrote."""
    return ServerReport.model_validate_json(run.report_json_path.read_bytes())


def assemble(config: ServerConfig, current: CurrentRun) -> ServerReport:
    """The report of a concluded run, from its directory."""
    run, study, last = current.run, current.study, current.rounds
    rounds = tuple(
        round_figures(run, study, number, _test_set(run, number)[1])
        for number in range(1, last + 1)
    )
    name, predicted = _test_set(run, last)
    verdicts = read_json(run.verdicts(last))["sites"]
    return ServerReport(
        study=study_facts(study),
        run=_run_facts(run),
        environment=this_environment(device_of(config), config.threads),
        test=_scored_images(name, predicted, study),
        scores=rounds[-1].scores,
        sites=tuple(_site(site, last, of) for site, of in _accepted(verdicts).items()),
        failed_sites=rounds[-1].failed_sites,
        seconds=_seconds(run),
        global_set=rounds[-1].global_set,
        rounds=rounds,
    )


def page_values(found: ServerReport, union: GlobalSet) -> dict[str, object]:
    """What the template shows besides the report: a drawing and the pictures."""
    from fedcondense.server.report_plots import measures_plot  # matplotlib takes half a second

    pictures = SetPictures(
        images=union.images,
        starts=None,
        labels=union.labels.astype(np.int64),
        sites=union.sites,
        classes=union.classes,
    )
    return {
        "report": found,
        "galleries": galleries(pictures),
        "measures_plot": measures_plot(found.scores.global_set, "measures"),
        "statements": sorted({site.gate.statement for site in found.sites}),
    }


def _run_facts(run: RunDirectory) -> RunFacts:
    description = run.description()
    began = min((event["time"] for event in events(run)), default=0)
    return RunFacts(
        id=description.run,
        begun=_utc(began),
        deadline=_utc(description.deadline),
        enrolled=len(run.enrolled),
        purpose="release",
    )


def round_figures(run: RunDirectory, study: Study, number: int, predicted: Predictions) -> Round:
    """A concluded round, scored on what its networks predicted of one test set."""
    union = read_global_set(run.global_set(number))
    names = [union.classes[label] for label in sorted(set(union.labels.tolist()))]
    figures = GlobalSetFigures(sha256=union.sha256, images=len(union), classes=tuple(names))
    scores = Scores(global_set=_scores(study, predicted, len(union)))
    verdicts = read_json(run.verdicts(number))["sites"]
    return Round(
        round=number,
        sites=tuple(_accepted(verdicts)),
        failed_sites=tuple(_failed(run, number, verdicts)),
        global_set=figures,
        scores=scores,
    )


def _scores(study: Study, predicted: Predictions, images: int) -> SetScores:
    """The same resamples as in scores.json: the same groups in the same order, the same seed."""
    evaluation = study.evaluation
    test = TestSet(predicted.labels, predicted.group_names, evaluation.resamples, study.seed)
    measures = measures_of(resample(predicted.probabilities, test), study.classes)
    views = images * study.distill.partition**2
    return SetScores(**measures.model_dump(), images=images, views=views)


def _test_set(run: RunDirectory, number: int) -> tuple[str, Predictions]:
    """The server's own evaluation set, of which there is one."""
    [(name, predicted)] = read_predictions(run.predictions(number)).items()
    return name, predicted


def _scored_images(name: str, predicted: Predictions, study: Study) -> ScoredImages:
    counts = np.bincount(predicted.labels, minlength=len(study.classes)).tolist()
    return ScoredImages(
        name=name,
        images=len(predicted.labels),
        groups=len(set(predicted.groups.tolist())),
        class_counts=dict(zip(study.classes, counts, strict=True)),
    )


def _accepted(verdicts: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {site: of for site, of in sorted(verdicts.items()) if of["verdict"] == "accepted"}


def _site(site: str, number: int, verdict: Mapping[str, Any]) -> SiteFigures:
    """From the verdict alone: a site that was revoked since has neither key nor file here."""
    record = verdict["record"]
    return SiteFigures(
        name=site,
        round=number,
        synthetic_images=verdict["images"],
        sealed_bytes=verdict["sealed_bytes"],
        left_out=tuple(record["classes_left_out"]),
        gate=Gate(
            purpose=record["purpose"],
            audits=record["audits"],
            statement=record["statement"],
            date=record["date"],
            software=record["software"],
        ),
        approved_by=tuple(verdict["approved_by"]),
        payload_sha256=verdict["payload_sha256"],
        signing_key=verdict["signing_key"],
    )


def _failed(
    run: RunDirectory, number: int, verdicts: Mapping[str, Mapping[str, Any]]
) -> list[FailedSite]:
    """Sites that did not contribute, with their code; and those whose contribution was rejected."""
    intake = read_json(run.intake(number))
    found = {
        site: FailedSite(name=site, round=number, outcome=outcome, code=code)
        for outcome in ("missing", "failed", "refused")
        for site, code in intake[outcome].items()
    }
    for site, of in verdicts.items():
        if of["verdict"] == "rejected":
            found[site] = FailedSite(
                name=site, round=number, outcome="rejected", code=str(of["reason"])
            )
    return [found[site] for site in sorted(found)]


def _seconds(run: RunDirectory) -> Seconds:
    """From the times of events; a process that died between two of them makes them longer."""
    told = events(run)
    times = {
        word: [event["time"] for event in told if event["event"] == word]
        for word in ("begun", "concluding", "concluded")
    }
    if not all(times.values()):
        return Seconds(evaluation=0, total=0)
    end = times["concluded"][-1]
    return Seconds(evaluation=end - times["concluding"][-1], total=end - times["begun"][0])


def _utc(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
