"""Transcripts of `fedcondense-site preview`, `approve`, `budget` and `status` at a hospital."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hospital_kit import Hospital, films, tiny_study
from typer.testing import CliRunner

from fedcondense.cli import site as command
from fedcondense.config.loading import parse_settings
from fedcondense.config.study import Study
from fedcondense.exchange.keys import SigningKey
from fedcondense.files.storage import write_json
from fedcondense.progress import Step
from fedcondense.site.journal import Journal

pytestmark = pytest.mark.usefixtures("audits_pass")

Run = Callable[..., tuple[int, list[str]]]
PRIVATE = {"mode": "dp-embed", "epsilon": 4.0}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command on SITE.toml; give exit code and all lines, those of errors last."""
    monkeypatch.chdir(tmp_path)

    def run_it(*words: str) -> tuple[int, list[str]]:
        result = CliRunner().invoke(command.app, [words[0], "SITE.toml", *words[1:]])
        lines = [line for line in result.stderr.splitlines() if "fedcondense-site:" in line]
        told = [line.removeprefix("fedcondense-site: ") for line in lines]
        return result.exit_code, [line.rstrip() for line in result.stdout.splitlines()] + told

    return run_it


def settle(
    folder: Path, study: Study, release: dict[str, Any] | None = None, **settings: Any
) -> None:
    """Write SITE.toml and study.toml of a small hospital."""
    hospital = Hospital(folder, study=study, arrays=films((8, 8, 8)))
    values = hospital.site.model_dump(mode="json", exclude_none=True) | settings
    values["release"] |= release or {}
    (folder / "SITE.toml").write_text(tomli_w.dumps(values))
    agreed = study.model_dump(mode="json", exclude_none=True)
    (folder / "study.toml").write_text(tomli_w.dumps(agreed))


def officer_in(folder: Path) -> tuple[str, dict[str, Any]]:
    """The fingerprint of a new officer's key, and [release] of a site that waits for it."""
    key = SigningKey.generate()
    key.save(folder / "stick" / "officer.key")
    release = {
        "needs_approval": True,
        "officer": key.fingerprint,
        "officer_key": str(folder / "stick" / "officer.key"),
    }
    return key.fingerprint, release


def private_study() -> Study:
    values = tiny_study().model_dump(mode="json", exclude_none=True)
    distill = {"method": "dm", "iterations": 2}
    return parse_settings(Study, values | {"distill": distill, "privacy": PRIVATE}, "study")


def page_of(folder: Path) -> str:
    [page] = folder.glob("runs/*/round-001/preview.html")
    return page.read_text()


def test_a_set_that_passes_is_named_by_its_page_and_condensed_once(run: Run, tmp_path: Path):
    settle(tmp_path, tiny_study())

    code, lines = run("preview")
    again = run("preview")

    assert code == 0
    assert lines[-1].startswith("The gate lets this set pass; nothing was sent. Read: /")
    assert lines[-1].endswith("round-001/preview.html")
    assert again == (code, lines)
    assert "This set may leave." in page_of(tmp_path)


def test_a_refused_set_is_exit_code_3_and_its_page_says_why(run: Run, tmp_path: Path):
    settle(tmp_path, tiny_study(start="real"))

    code, lines = run("preview")

    assert code == 3
    assert lines[0].startswith("The gate refused. The page says why: /")
    assert lines[1] == "error FC401: nothing is released: real-start"
    assert "This set must not leave." in page_of(tmp_path)
    assert "began as radiographs of patients" in page_of(tmp_path)


def test_no_third_set_is_looked_at_where_two_are_allowed(run: Run, tmp_path: Path):
    settle(tmp_path, tiny_study(start="real"))

    lines = [run("preview")[1][-2] for _ in range(3)]

    assert "nothing is released" in lines[1]
    assert lines[2] == "error FC401: 2 sets of this round were refused, no more are looked at"


def test_nothing_can_be_approved_that_is_not_there_or_was_refused(run: Run, tmp_path: Path):
    settle(tmp_path, tiny_study(start="real"), officer_in(tmp_path)[1])

    before = run("approve", "1")
    run("preview")
    refused = run("approve", "1")

    assert before == refused
    assert before[0] == 3
    assert before[1][0] == "error FC405: round 1 has no set that the gate lets pass"


def test_what_the_officer_signs_is_shown_as_on_the_page_which_says_so_afterwards(
    run: Run, tmp_path: Path
):
    fingerprint, release = officer_in(tmp_path)
    settle(tmp_path, tiny_study(), release)

    _, waiting = run("preview")
    page = page_of(tmp_path)
    code, signed = run("approve", "1")

    assert waiting[-1].endswith("has signed: fedcondense-site approve SITE.toml 1")
    assert "if you approve it" in page
    assert code == 0
    assert signed[0].removeprefix("payload ") in page
    assert signed[1] == f"approved by {fingerprint}"
    assert "you have approved it" in page_of(tmp_path)
    assert run("preview")[1][-1] == "The data officer has signed it; `join` sends it."


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"officer_key": None}, "site.toml: release.officer_key is missing"),
        ({"officer": None}, "site.toml: release.officer is missing"),
        ({"officer": "0000 " * 16}, "is not the key whose fingerprint release.officer names"),
    ],
)
def test_an_approval_without_the_pinned_key_is_refused(
    run: Run, tmp_path: Path, changes: dict[str, Any], said: str
):
    release = officer_in(tmp_path)[1] | changes
    settle(tmp_path, tiny_study(), {k: v for k, v in release.items() if v is not None})
    run("preview")

    code, lines = run("approve", "1")

    assert code == 2
    assert said in lines[0]
    assert "if you approve it" in page_of(tmp_path)


def test_a_round_is_counted_from_one(run: Run, tmp_path: Path):
    settle(tmp_path, tiny_study())

    assert run("approve", "0")[0] == run("approve")[0] == 2


def test_a_site_without_a_budget_is_told_what_that_means(run: Run, tmp_path: Path):
    settle(tmp_path, tiny_study())

    before = run("budget")[1]
    run("preview")
    after = run("budget")[1]

    assert "budget: none: only studies without differential privacy are possible" in before
    assert "spent: epsilon 0 at delta 1e-05" in before
    assert "spent: not bounded: patients were read without noise" in after
    assert "study tiny: its set is paid for; `join` sends it and pays no more" in after
    assert "audits of the site's own sets, which cost nothing: 1" in after


def test_an_epsilon_of_the_budget_stands_with_delta_and_unit(run: Run, tmp_path: Path):
    settle(tmp_path, private_study(), ledger={"epsilon": 4.0}, declared={"images": 24})

    code, lines = run("budget")

    assert code == 0
    assert "budget: epsilon 4, delta 1e-05, unit image" in lines
    planned = [line for line in lines if line.startswith("study tiny, mode dp-embed: afterwards")]
    assert planned
    assert planned[0].endswith("at delta 1e-05, unit image")


def test_a_study_beyond_the_budget_is_announced_and_then_refused_unread(run: Run, tmp_path: Path):
    settle(tmp_path, private_study(), ledger={"epsilon": 1.0}, declared={"images": 24})

    announced = run("budget")
    code, lines = run("preview")

    assert announced[0] == 0
    assert announced[1][-1].startswith("it would be refused: epsilon 0 is spent and the study")
    assert "the budget in [ledger] is 1 (delta 1e-05, unit image" in announced[1][-1]
    assert code == 3
    assert lines[-2].startswith("error FC406: epsilon 0 is spent")
    assert not list(tmp_path.glob("runs/*/round-001/synthetic*"))


def test_noise_is_not_planned_without_a_declared_number(run: Run, tmp_path: Path):
    settle(tmp_path, private_study(), ledger={"epsilon": 4.0})

    code, lines = run("budget")

    assert code == 2
    assert lines[0] == "error FC101: site.toml: [declared] images is missing"


def test_status_says_how_far_each_round_is_and_what_came_of_it(run: Run, tmp_path: Path):
    study = tiny_study()
    settle(tmp_path, study)
    rounds = tmp_path / "runs" / study.digest
    Journal(rounds / "round-001" / "log.jsonl")(Step("condensing", 140, 300))
    (rounds / "round-002" / "global").mkdir(parents=True)
    (rounds / "round-002" / "figures.json").touch()
    scores = {"balanced_accuracy": {"mean": "0.695", "low": "0.6421", "high": "0.743"}}
    for number in (2, 3):
        result = rounds / f"round-00{number}" / "global" / "result.json"
        result.parent.mkdir(parents=True, exist_ok=True)
        write_json(result, {"result": {"scores": scores}})
    (rounds / "round-002" / "global" / "set.safetensors").touch()

    code, lines = run("status")

    assert code == 1  # nobody has given `join`
    assert [line for line in lines if line.startswith("round ")] == [
        f"round 1 of study {study.digest[:8]}: not condensed yet, condensing 140/300, sealed 0",
        f"round 2 of study {study.digest[:8]}: condensed, sealed 0; its global set: balanced "
        "accuracy 0.695 (0.642 to 0.743)",
        f"round 3 of study {study.digest[:8]}: not condensed, sealed 0; its global set, too large "
        "to be sent: balanced accuracy 0.695 (0.642 to 0.743)",
    ]
