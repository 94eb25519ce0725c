from __future__ import annotations

import pytest
from wire_kit import small_study

from fedcondense.errors import DescriptionRejected, RunDirectoryError
from fedcondense.exchange.run_description import sign_description
from fedcondense.server.run_directory import RunDirectory


def test_a_new_run_holds_its_study_its_digest_and_its_description(run, wire):
    again = RunDirectory(run.path)

    assert again.study() == wire.study
    assert again.digest_path.read_text() == f"{wire.study.digest}\n"
    assert again.description() == wire.description
    assert set(again.enrolled) == {"site-1", "site-2"}


def test_a_run_is_not_begun_where_something_is(run, wire):
    with pytest.raises(RunDirectoryError, match=r"^run: not empty$") as error:
        RunDirectory.create(run.path, wire.study, run.description_path.read_bytes())

    assert error.value.code == "FC102"


def test_a_run_is_not_begun_with_the_description_of_another_study(tmp_path, wire):
    signed = sign_description(wire.description, wire.server)

    with pytest.raises(DescriptionRejected, match="the run is of another study"):
        RunDirectory.create(tmp_path / "run", small_study(seed=9), signed)


def test_a_study_cannot_change_in_a_run(run):
    text = run.study_path.read_text()
    run.study_path.write_text(text.replace("images_per_class = 3", "images_per_class = 4"))

    with pytest.raises(RunDirectoryError, match="not the study that was pinned"):
        run.study()


@pytest.mark.parametrize("name", ["run.json", "enrolment.json", "study.digest"])
def test_a_missing_file_is_named(run, name):
    (run.path / name).unlink()

    with pytest.raises(RunDirectoryError, match=f"^run: {name} cannot be read$"):
        run.expectation(1)


def test_a_run_takes_only_its_own_purpose(run):
    assert run.expectation(1).purposes == {"release"}


def test_files_of_a_round_have_fixed_places(run):
    files = {
        "request.json": run.request(1),
        "sealed/site-1.sealed": run.sealed(1, "site-1"),
        "rejections.json": run.rejections(1),
        "intake.json": run.intake(1),
        "opened/site-1": run.opened(1, "site-1"),
        "verdicts.json": run.verdicts(1),
        "global": run.global_set(1),
        "classifier": run.classifier(1),
        "scores.json": run.scores(1),
        "done.json": run.done(1),
    }

    assert {name: run.path / "round-001" / name for name in files} == files
    assert run.events_path.name == "events.jsonl"
    assert (run.report_path.name, run.report_json_path.name) == ("report.html", "report.json")
    assert not (run.path / "round-001").exists()
