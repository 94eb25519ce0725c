"""What lies ready for a coordinator: example settings, the service unit, the page that leads."""

from __future__ import annotations

import re
from pathlib import Path

from typer.testing import CliRunner

from fedcondense.cli.server import app
from fedcondense.config.server import load_server
from fedcondense.config.study import load_study
from fedcondense.flower import deployed_round, deployment
from fedcondense.server.first_files import study_toml
from fedcondense.server.run_directory import RunDirectory

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to-run-a-server.md").read_text(encoding="utf-8")


def test_the_examples_are_read_by_the_real_models() -> None:
    config = load_server(ROOT / "server" / "server.toml")

    assert config.address.names == ("consortium.example.org",)
    assert load_study(ROOT / "server" / "study.toml").quorum == 2


def test_the_privacy_that_is_commented_out_could_be_put_in(tmp_path: Path) -> None:
    commented = re.compile(r"^# (\[\w+\]|\w+ = .*)$", re.MULTILINE)
    assert len(commented.findall(study_toml())) == 4
    path = tmp_path / "study.toml"

    path.write_text(commented.sub(r"\1", study_toml()))

    assert load_study(path).privacy.mode == "dp-embed"


def test_every_command_of_the_page_is_one_that_there_is() -> None:
    given = set(re.findall(r"fedcondense-server (\w+)", PAGE)) - {"runs"}
    known = {command.name or command.callback.__name__ for command in app.registered_commands}

    assert given == known


def test_every_line_that_the_page_explains_is_one_that_is_said() -> None:
    source = "".join(Path(of.__file__).read_text() for of in (deployment, deployed_round))

    said = ("contributed, ", "has died", "starting it again in", "certificate ends on")
    for words in (*said, "were told that the study is over"):
        assert words in source
        assert words in PAGE


def test_the_drawn_directory_is_that_of_a_run(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    named = [run.report_path, run.report_json_path, run.events_path]
    named += [run.sealed_folder(1), run.verdicts(1), run.global_set(1), run.classifier(1)]

    for path in named:
        assert path.name in PAGE


def test_init_says_what_the_page_says(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["init", str(tmp_path / "SERVER.toml"), "localhost"]).stdout

    for word in ("study digest", "run-signing fingerprint", "authority fingerprint"):
        assert word in shown
    assert "authority.pem" in shown
