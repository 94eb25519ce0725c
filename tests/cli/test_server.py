"""Transcripts of `fedcondense-server`: what a coordinator sees."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from enrolment_kit import DAY, NOW, Applicant
from server_kit import Office, make_office
from typer.testing import CliRunner

from fedcondense.cli.server import app
from fedcondense.exchange.keys import SigningKey
from fedcondense.files.storage import write_atomically, write_json
from fedcondense.flower import superlink
from fedcondense.flower.processes import free_port
from fedcondense.flower.round_files import Progress, Stage, write_progress
from fedcondense.server.current_run import CurrentRun, begin_run, study_of

Command = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def server() -> Command:
    """Give a command; exit code, lines of standard output, lines of standard error."""

    def give(*arguments: object) -> tuple[int, list[str], list[str]]:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        said = [line for line in result.stderr.splitlines() if line.startswith("fedcondense")]
        return result.exit_code, result.stdout.splitlines(), said

    return give


@pytest.fixture
def office(tmp_path: Path) -> Office:
    made = make_office(tmp_path / "office")
    made.certify()
    return made


@pytest.fixture
def path(office: Office) -> Path:
    return office.folder / "SERVER.toml"


def begun(office: Office) -> CurrentRun:
    return begin_run(office.config, study_of(office.config), now=NOW)


def test_init_names_what_it_wrote_and_what_sites_pin(server: Command, tmp_path: Path) -> None:
    path = tmp_path / "SERVER.toml"

    code, shown, _ = server("init", path, "consortium.example.org")

    pinned = SigningKey.load(tmp_path / "keys" / "run-signing.key").fingerprint
    assert code == 0
    assert [line.rpartition("/")[2] for line in shown[:5]] == [
        "SERVER.toml",
        "STUDY.toml",
        "run-signing.key",
        "authority.pem",
        "server.pem",
    ]
    assert f"run-signing fingerprint   {pinned}" in shown
    assert "  consortium.example.org:8444" in shown
    assert any(line.startswith("study digest              ") for line in shown)


def test_init_once_more_shows_the_same_and_writes_nothing(server: Command, tmp_path: Path) -> None:
    path = tmp_path / "SERVER.toml"
    _, first, _ = server("init", path, "consortium.example.org")

    code, second, _ = server("init", path)

    assert code == 0
    assert not any(line.startswith("wrote") for line in second)
    assert second == [line for line in first if not line.startswith("wrote")]


def test_enroll_shows_the_fingerprints_to_compare(
    server: Command, path: Path, tmp_path: Path
) -> None:
    site = Applicant(officer=SigningKey.generate())

    code, shown, _ = server("enroll", path, site.write(tmp_path))

    assert code == 0
    assert shown[0].startswith("lakeside is enrolled until 20")
    assert shown[1:4] == [
        f"signing key   {site.signing.fingerprint}",
        f"node key      {site.node.fingerprint}",
        f"data officer  {site.request.officer_fingerprint}",
    ]
    assert shown[4] == f"If they differ: fedcondense-server revoke {path} lakeside"


def test_a_request_that_cannot_be_accepted_is_an_error(
    server: Command, path: Path, tmp_path: Path
) -> None:
    late = Applicant(expires=int(NOW) - DAY)

    code, _, said = server("enroll", path, late.write(tmp_path))

    assert code == 1
    assert said == [
        "fedcondense-server: error FC408: lakeside: the request is over",
        "fedcondense-server: hint: ask the site for a new one",
    ]


def test_revoke_is_for_good(server: Command, path: Path, tmp_path: Path) -> None:
    request = Applicant().write(tmp_path)
    server("enroll", path, request)

    code, shown, _ = server("revoke", path, "lakeside")
    again, _, said = server("enroll", path, request)

    assert code == 0
    assert shown[0].startswith("lakeside is revoked for good.")
    assert again == 1
    assert said[0].endswith("lakeside: one of its keys was revoked")


def test_nobody_is_revoked_by_a_misspelled_name(server: Command, path: Path) -> None:
    code, _, said = server("revoke", path, "lakside")

    assert code == 1
    assert said[0] == "fedcondense-server: error FC408: lakside: not enrolled"


def test_status_names_each_site_and_how_far_it_came(
    server: Command, path: Path, office: Office, tmp_path: Path
) -> None:
    for name in ("bay", "hill", "lakeside", "moor"):
        office.register.enroll(Applicant(name).write(tmp_path), now=NOW)
    office.register.revoke("moor", now=NOW)
    run = begun(office).run
    stages = {"bay": Stage.REFUSED, "hill": Stage.ABSENT, "lakeside": Stage.ASKED}
    write_progress(run.round(1), Progress(stages, {"bay": "FC401"}, ("lakeside",)))

    code, shown, _ = server("status", path)

    assert code == 1
    assert shown[1] == "no server runs"
    assert "round 1 of 1, 0 contributed, the quorum is 1, deadline 20" in shown[3]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown if "│" in line]
    assert rows == [
        ["bay", "active", "no", "refused", "FC401"],
        ["hill", "active", "no", "absent", ""],
        ["lakeside", "active", "no", "asked", ""],
        ["moor", "revoked", "no", "absent", ""],
    ]


def test_status_is_well_when_the_run_is_finished(
    server: Command, path: Path, office: Office
) -> None:
    run = begun(office).run
    write_json(run.done(1), {})
    write_json(run.report_json_path, {})

    code, shown, _ = server("status", path)

    assert code == 0
    assert shown[3].endswith(": finished")


def test_a_report_needs_a_concluded_run(server: Command, path: Path, office: Office) -> None:
    begun(office)

    code, _, said = server("report", path)

    assert code == 1
    assert said[0].endswith("runs: no run of this study is concluded")


def test_a_run_with_a_certificate_that_sites_would_refuse_does_not_begin(
    server: Command, path: Path, office: Office
) -> None:
    text = path.read_text()
    path.write_text(text.replace('"localhost"', '"localhost", "new.example.org"'))

    code, _, said = server("run", path)

    assert code == 1
    assert said == [
        "fedcondense-server: error FC403: server.pem: it does not name new.example.org",
        "fedcondense-server: hint: move certificate and key away and give "
        "`fedcondense-server init` again",
    ]
    assert not list(office.config.keys.glob("opening-*"))


def test_a_run_whose_description_was_altered_is_refused(
    server: Command, path: Path, office: Office
) -> None:
    run = begun(office).run
    data = run.description_path.read_bytes()
    write_atomically(run.description_path, data.replace(b'"quorum":1', b'"quorum":2'))

    code, _, said = server("status", path)

    assert code == 1
    assert said[0].startswith("fedcondense-server: error FC404")


def test_help_names_every_verb() -> None:
    text = CliRunner().invoke(app, ["--help"]).stdout

    for verb in ("init", "enroll", "revoke", "run", "status", "report"):
        assert verb in text


def test_there_are_no_tuning_flags() -> None:
    for verb in ("init", "enroll", "revoke", "run", "status", "report"):
        text = CliRunner().invoke(app, [verb, "--help"]).stdout
        assert {word for word in text.split() if word.startswith("--")} == {"--help"}


def test_a_port_that_is_in_use_is_told_before_any_image_is_read(
    server: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    ports = {"port": taken.getsockname()[1], "admin_port": free_port(), "health_port": free_port()}
    address = {"names": ["localhost"], "listen": "127.0.0.1", **ports}
    made = make_office(tmp_path / "busy", address=address)
    made.certify()
    monkeypatch.setattr(superlink, "LONGEST_RELEASE", 0.0)
    monkeypatch.setitem(sys.modules, "fedcondense.server.evaluation_images", None)  # reads them

    with taken:
        code, _, said = server("run", made.folder / "SERVER.toml")

    assert code == 1
    assert said[0] == f"fedcondense-server: error FC502: port {ports['port']} cannot be bound"


def test_free_disk_is_that_of_where_runs_will_be(
    server: Command, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def usage(place: Path) -> object:
        asked.append(place)
        return shutil._ntuple_diskusage(3, 2, 1)

    monkeypatch.setattr(shutil, "disk_usage", usage)

    server("status", path)

    assert asked == [path.parent]
