"""The server's report: what contributions and its own images say, and nothing else."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from enrolment_kit import Applicant
from page_kit import PageReader, numbers_of
from server_kit import Office, make_office
from wire_kit import decided, payload_of, small_study
from words_kit import forbidden_in

from fedcondense.exchange.run_description import Request
from fedcondense.exchange.sealing import seal
from fedcondense.files.storage import read_json, write_atomically
from fedcondense.flower.round_files import Intake, write_intake
from fedcondense.server.aggregate import read_global_set
from fedcondense.server.conclusion import Conclusion
from fedcondense.server.current_run import CurrentRun, begin_run
from fedcondense.server.enrolment import admit
from fedcondense.server.evaluation_images import load_evaluation
from fedcondense.server.events import note
from fedcondense.server.intake import receive, stored_digests
from fedcondense.server.report import PAGE as PAGE_OF_SERVER
from fedcondense.server.report import assemble, page_values, read_report, write_report
from fedcondense.server.report_figures import PrivacyFacts
from fedcondense.server.report_schema import ServerReport

SHORT = {"networks": 2, "steps": 4, "batch": 8, "resamples": 100}
STUDY = small_study(
    classes=["Normal", "Viral_Pneumonia"],
    network={"width": 4, "depth": 2},
    evaluation=SHORT,
    quorum=2,
)
GOOD = ("bay", "lakeside")
PAGE = Path(__file__).parents[2] / "docs" / "ref-report.md"


@dataclass(frozen=True)
class Concluded:
    """A concluded run: two sites contributed, one copied a set, one refused, one is absent."""

    office: Office
    current: CurrentRun

    def report(self) -> tuple[str, dict[str, Any]]:
        write_report(self.office.config, self.current)
        run = self.current.run
        return run.report_path.read_text("utf-8"), json.loads(run.report_json_path.read_bytes())


def conclude(
    folder: Path, names: tuple[str, ...] = GOOD, others: tuple[str, ...] = ()
) -> Concluded:
    office = make_office(
        folder, study=STUDY, evaluation={"kind": "phantoms", "images_per_class": 12}
    )
    sites = {name: Applicant(name) for name in (*names, *others)}
    current = begin_run(office.config, STUDY, now=time.time())
    admit(current.run, {name: site.request for name, site in sites.items()})
    note(current.run, "begun")
    request = Request(current.run.description(), 1)
    for name in (*names, *(other for other in others if other == "copier")):
        seed = 0 if name == "copier" else names.index(name)
        released = decided(payload_of(STUDY, (0, 1, 1), seed=seed), STUDY)
        blob = seal(released, request, name, STUDY, sites[name].signing)
        receive(current.run, blob, 1, sender=name)
    stored = stored_digests(current.run, 1)
    missing = {name: "FC502" for name in sites if name not in stored and name != "hill"}
    refused = {"hill": "FC401"} if "hill" in sites else {}
    write_intake(current.run.intake(1), Intake(1, stored, refused, {}, missing))
    note(current.run, "concluding", round=1)
    Conclusion(office.config, load_evaluation(office.config, STUDY))(current, 1)
    note(current.run, "concluded", round=1)
    return Concluded(office, current)


@pytest.fixture(scope="module")
def concluded(tmp_path_factory: pytest.TempPathFactory) -> Concluded:
    return conclude(tmp_path_factory.mktemp("office"), others=("copier", "hill", "moor"))


@pytest.fixture(scope="module")
def page(concluded: Concluded) -> str:
    return concluded.report()[0]


@pytest.fixture(scope="module")
def values(concluded: Concluded) -> dict[str, Any]:
    return concluded.report()[1]


def test_every_figure_of_the_page_stands_in_the_json(page: str, values: dict[str, Any]) -> None:
    reader = PageReader(page)

    assert len(reader.figures) > 30
    assert set(reader.figures) <= numbers_of(values)
    assert not re.findall(r"\d\.\d+\s*%|\b0\.\d{3}\b", reader.text)  # none is written by hand


def test_the_scores_are_those_that_the_conclusion_wrote(
    concluded: Concluded, values: dict[str, Any]
) -> None:
    written = read_json(concluded.current.run.scores(1))["test"]

    shown = values["scores"]["global"]

    assert {name: shown[name] for name in written} == written
    assert values["rounds"] == [
        {
            "round": 1,
            "sites": [site["name"] for site in values["sites"]],
            "failed_sites": values["failed_sites"],
            "global_set": values["global_set"],
            "scores": values["scores"],
        }
    ]


def test_what_only_a_simulation_knows_is_absent_and_not_null(values: dict[str, Any]) -> None:
    assert set(values["scores"]) == {"global"}
    assert not {"gains", "external", "repetitions", "release"} & set(values)
    unknown = {"images", "groups", "class_counts", "seconds", "peak_megabytes", "curve"}
    assert not any(unknown & set(site) for site in values["sites"])
    assert not {"start_up", "condense", "federation"} & set(values["seconds"])
    assert "null" not in json.dumps(values)


def test_each_contribution_stands_with_what_its_own_record_says(
    concluded: Concluded, values: dict[str, Any]
) -> None:
    sites = {site["name"]: site for site in values["sites"]}
    verdicts = read_json(concluded.current.run.verdicts(1))["sites"]

    assert sorted(sites) == ["bay", "lakeside"]
    for name, site in sites.items():
        record = verdicts[name]["record"]
        assert site["synthetic_images"] == 3
        assert site["gate"]["statement"] == record["statement"]
        assert site["gate"]["audits"] == record["audits"]
        assert site["payload_sha256"] == verdicts[name]["payload_sha256"]


def test_each_enrolled_site_without_a_contribution_is_named_with_its_reason(
    page: str, values: dict[str, Any]
) -> None:
    failed = {site["name"]: (site["outcome"], site["code"]) for site in values["failed_sites"]}

    assert failed == {
        "copier": ("rejected", "duplicate"),
        "hill": ("refused", "FC401"),
        "moor": ("missing", "FC502"),
    }
    text = PageReader(page).text
    for name in failed:
        assert name in text
    assert values["run"]["enrolled"] == 5


def test_verdicts_stand_one_by_one_and_reasons_stay_at_the_refused_site(
    page: str, values: dict[str, Any]
) -> None:
    reader = PageReader(page)
    text = " ".join(reader.text.split())

    for word in ("Provenance", "Memorisation", "Membership"):
        assert f'<th scope="col">{word}</th>' in page
    for site in values["sites"]:
        assert set(site["gate"]["audits"]) == {"provenance", "memorisation", "membership"}
    assert "refused by its own gate; why, stands on the site's own page and stays there" in text
    assert "preview.html" not in page


def test_an_epsilon_of_the_study_stands_with_delta_unit_and_mode(
    concluded: Concluded, page: str, values: dict[str, Any]
) -> None:
    assert values["study"]["privacy"] == {"mode": "none"}
    assert "mode none: nothing bounds an attack" in page
    report = assemble(concluded.office.config, concluded.current)
    privacy = PrivacyFacts(mode="dp-sgd", epsilon=3.0, delta=1e-6, unit="patient")
    study = report.study.model_copy(update={"privacy": privacy})
    asked = report.model_copy(update={"study": study})

    union = read_global_set(concluded.current.run.global_set(1))
    shown = PAGE_OF_SERVER.render(page_values(asked, union)).decode()

    assert "at most; mode dp-sgd, delta 1e-06, unit patient" in shown
    assert asked.to_json()["study"]["privacy"] == privacy.model_dump()


def test_the_statements_of_the_records_stand_on_the_page_word_for_word(
    page: str, values: dict[str, Any]
) -> None:
    text = " ".join(PageReader(page).text.split())

    for site in values["sites"]:
        assert site["gate"]["statement"] in text
    assert "No formal privacy guarantee." in text


def test_no_word_of_the_page_promises_what_nobody_showed(page: str) -> None:
    assert forbidden_in(PageReader(page).text) == []


def test_the_page_loads_nothing_and_runs_nothing(page: str) -> None:
    reader = PageReader(page)

    assert not {"script", "link", "iframe", "object", "embed", "form"} & set(reader.elements)
    assert all(a.startswith(("#", "data:image/png;base64,")) for a in reader.addresses)
    assert not [name for name in reader.attributes if name.startswith("on")]
    assert "http" not in page.replace("http-equiv", "")


def test_every_link_inside_has_its_end(page: str) -> None:
    reader = PageReader(page)

    inner = {a[1:] for a in reader.addresses if a.startswith("#")}
    assert inner | set(re.findall(r"url\(#([^)]*)\)", page)) <= set(reader.ids)
    assert len(reader.ids) == len(set(reader.ids))


def test_every_image_of_the_set_is_shown_and_no_start(page: str, values: dict[str, Any]) -> None:
    assert PageReader(page).elements.count("img") == values["global_set"]["images"] == 6
    assert "start of image" not in page


def test_the_report_can_be_written_again_from_the_run_directory_alone(
    concluded: Concluded,
) -> None:
    first = write_report(concluded.office.config, concluded.current)

    assert read_report(concluded.current.run) == first
    again = assemble(concluded.office.config, concluded.current)
    assert again.model_copy(update={"environment": first.environment}) == first


def test_a_report_without_failures_says_so(tmp_path: Path) -> None:
    page, values = conclude(tmp_path).report()

    assert values["failed_sites"] == []
    assert "Every enrolled site contributed." in page


def test_a_class_without_a_test_image_has_no_recall(tmp_path: Path) -> None:
    concluded = conclude(tmp_path)
    report = assemble(concluded.office.config, concluded.current)
    scores = report.scores.global_set
    lacking = scores.model_copy(
        update={"per_class_recall": {"Normal": 0.5, "Viral_Pneumonia": None}}
    )
    changed = report.model_copy(
        update={"scores": report.scores.model_copy(update={"global_set": lacking})}
    )

    again = ServerReport.model_validate_json(json.dumps(changed.to_json()))

    assert again.scores.global_set.per_class_recall == lacking.per_class_recall


def test_a_run_that_was_told_nothing_of_its_times_still_has_a_report(tmp_path: Path) -> None:
    concluded = conclude(tmp_path)
    write_atomically(concluded.current.run.events_path, b"")

    _, values = concluded.report()

    assert values["seconds"] == {"evaluation": 0.0, "total": 0.0}


def test_the_schema_page_names_every_key() -> None:
    text = PAGE.read_text("utf-8")
    schema = ServerReport.model_json_schema(by_alias=True)
    keys = {
        key for model in [schema, *schema["$defs"].values()] for key in model.get("properties", {})
    }

    assert not [key for key in sorted(keys) if f"`{key}`" not in text]


def test_the_report_stands_also_where_a_site_was_revoked_after_the_conclusion(
    tmp_path: Path,
) -> None:
    later = conclude(tmp_path)
    before = later.report()[1]["sites"]

    admit(later.current.run, {})

    assert later.report()[1]["sites"] == before
    assert not later.current.run.sealed(1, "bay").exists()
