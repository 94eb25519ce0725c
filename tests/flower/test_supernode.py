"""The site's supervisor without its processes: pauses, environment, command, reasons."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
from flwr.common.config import parse_config_args
from joined_kit import Hospital, hospital

from fedcondense.config.site import load_site
from fedcondense.errors import KeyFileError, SettingsError
from fedcondense.flower import supernode
from fedcondense.flower.processes import Children
from fedcondense.flower.supernode import Supervisor, join, next_pause
from fedcondense.flower.supernode_log import LONGEST, SupernodeLog
from fedcondense.site.join_status import JoinState, is_joined, only_one, read_status
from fedcondense.site.last_request import LastRequest, note_request
from fedcondense.site.readiness import server_of


@pytest.fixture
def lakeside(tmp_path: Path) -> Hospital:
    return hospital(tmp_path / "my site" / "lakeside")


@pytest.fixture
def supervisor(lakeside: Hospital) -> Supervisor:
    site = load_site(lakeside.settings)
    return Supervisor(lakeside.settings, site, server_of(site), lambda line: None)


def test_pauses_double_up_to_a_minute_and_begin_anew_after_a_steady_minute() -> None:
    pauses = [next_pause(0.0, 1.0)]
    for _ in range(6):
        pauses.append(next_pause(pauses[-1], 5.0))

    assert pauses == [2, 4, 8, 16, 32, 60, 60]
    assert next_pause(60.0, 60.0) == 2


def test_children_get_nothing_of_flowers_from_outside_and_no_way_out(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLWR_INTERNAL_GRPC_FLEET_API", "1")
    monkeypatch.setenv("FEDCONDENSE_SIMULATION", "/elsewhere")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")

    environment = supervisor._environment("/state/bin:/usr/bin")

    assert environment["PATH"] == "/state/bin:/usr/bin"
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert environment["FLWR_HOME"] == str(supervisor.site.state / "flower" / "home")
    assert environment["OMP_NUM_THREADS"] == "1"
    for name in ("FLWR_INTERNAL_GRPC_FLEET_API", "FEDCONDENSE_SIMULATION", "NOTIFY_SOCKET"):
        assert name not in environment
    assert not [value for value in environment.values() if "signing.key" in value]


def test_the_supernode_is_told_to_trust_one_authority_and_to_listen_on_loopback(
    supervisor: Supervisor, lakeside: Hospital
) -> None:
    _, *arguments = supervisor._command(4321)

    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert options["--root-certificates"] == str(supervisor.server.authority)
    assert options["--auth-supernode-private-key"] == str(lakeside.state / "keys" / "node.key")
    assert options["--host"] == "127.0.0.1"
    assert options["--health-server-address"] == "127.0.0.1:4321"
    assert parse_config_args([options["--node-config"]]) == {"site-config": str(lakeside.settings)}
    assert not {"--insecure", "--allow-runtime-dependency-installation"} & set(arguments)


@pytest.mark.parametrize("path", ["/a'b/SITE.toml", "/a\nb/SITE.toml"])
def test_a_path_that_flower_would_read_otherwise_is_refused(path: str) -> None:
    with pytest.raises(SettingsError, match="a quote or a control character"):
        supernode._quoted(Path(path))


@pytest.mark.parametrize("path", ["/a b/SITE.toml", '/a"b/SITE.toml', "/a\\b/ä.toml"])
def test_other_paths_are_what_toml_reads(path: str) -> None:
    assert tomllib.loads(f"x={supernode._quoted(Path(path))}") == {"x": path}


@pytest.mark.parametrize(
    ("printed", "code", "reason"),
    [
        ("Failed [code: 2004] Failed to activate SuperNode.", 1, "the server refused the node key"),
        ("SSL/TLS handshake error detected.", 1, "the server's certificate was not accepted"),
        ("SuperNode terminated gracefully.", 0, "the server refused the node's signature"),
        ("Killed", -9, "the SuperNode ended with exit code -9"),
        ("", None, "the SuperNode ended with exit code None"),
    ],
)
def test_an_end_is_explained_in_one_line(
    tmp_path: Path, printed: str, code: int | None, reason: str
) -> None:
    path = tmp_path / "log"
    path.write_text("[code: 2004] of an earlier SuperNode\n")
    log = SupernodeLog(path)
    log.begin()
    with path.open("a") as file:
        file.write(printed)

    assert log.reason(code).startswith(reason)
    assert "\n" not in log.reason(code)


def test_a_connection_is_seen_in_the_newest_supernodes_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = SupernodeLog(path)
    log.begin()
    assert not log.is_connected()

    path.write_text("INFO : SuperNode ID: 12\n")
    assert log.is_connected()

    log.begin()
    assert not log.is_connected()


@pytest.mark.parametrize(
    ("printed", "is_sending"),
    [
        ("", False),
        ("INFO : Sending: train message (ID: 1)\n", True),
        ("INFO : Sending: train message (ID: 1)\nINFO : Sent successfully\n", False),
        ("INFO : Sending: query message (ID: 1)\nERROR : Failed to send message 1: x\n", False),
        ("INFO : Sent successfully\nINFO : Sending: train message (ID: 2)\n", True),
    ],
)
def test_an_answer_that_is_not_sent_yet_is_seen(
    tmp_path: Path, printed: str, is_sending: bool
) -> None:
    log = SupernodeLog(tmp_path / "log")
    log.begin()
    log.path.write_text(printed)

    assert log.is_sending() is is_sending


@pytest.mark.parametrize("client_lives", [True, False])
def test_a_supernode_that_waits_for_a_dead_clients_answer_is_started_again(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, client_lives: bool
) -> None:
    for name, seconds in {"LOOK": 0.01, "LOOK_AT_ALL": 0.02, "STALLED": 0.1}.items():
        monkeypatch.setattr(supernode, name, seconds)
    running = {supernode.SUPEREXEC} | ({supernode.CLIENT_MODULE} if client_lives else set())
    monkeypatch.setattr(Children, "has_running", lambda _, command: command in running)
    supervisor.log.begin()
    supervisor.log.path.write_text("INFO : Sending: train message (ID: 1)\n")
    child = subprocess.Popen(["sleep", "1"])

    reason = supervisor._watch(child, Children({}, Path(), Path()), 1)
    child.kill()
    child.wait()

    assert reason.startswith("the SuperNode ended" if client_lives else "the SuperNode waits for")


def test_a_large_answer_over_a_slow_link_is_given_its_time(supervisor: Supervisor) -> None:
    sealed = supervisor.site.state / "runs" / "study" / "round-001" / "sealed"
    sealed.mkdir(parents=True)
    (sealed / "run.sealed").write_bytes(bytes(640_000))

    assert supervisor._longest_sending() == pytest.approx(supernode.STALLED + 10)


def test_a_log_does_not_grow_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * (LONGEST + 1))
    log = SupernodeLog(path)

    with path.open("ab") as writer:
        log.keep_short()
        writer.write(b"SuperNode ID: 1")

    assert path.read_bytes() == b"SuperNode ID: 1"
    assert log.is_connected()


def test_a_signal_ends_the_loop_and_handlers_are_put_back(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives: list[int] = []

    def live() -> str:
        lives.append(1)
        if len(lives) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return "it ended"

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(supervisor, "_live_once", live)
    monkeypatch.setattr(supernode, "FIRST_PAUSE", 0.01)

    supervisor.run()

    status = read_status(supervisor.site.state)
    assert len(lives) == 2
    assert status is not None
    assert (status.state, status.restarts, status.last_exit) == (JoinState.STOPPED, 1, "it ended")
    assert signal.getsignal(signal.SIGTERM) is before


def answered(site: Path, kind: str, outcome: str = "ready") -> None:
    note_request(site, LastRequest(int(time.time()), kind, 1, outcome, "", "0.1.0"))


def test_a_site_that_was_told_what_the_study_gave_signs_off_once_its_answer_has_left(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    supervisor.tell = told.append
    monkeypatch.setattr(supernode, "PARTING", 0.05)
    monkeypatch.setattr(supernode, "LOOK", 0.01)
    child = subprocess.Popen(["sleep", "60"])
    monkeypatch.setattr(
        supervisor, "_live_once", lambda: supervisor._watch(child, Children({}, Path(), Path()), 1)
    )
    answered(supervisor.site.state, "query.result")

    try:
        supervisor.run()
    finally:
        child.kill()
        child.wait()

    status = read_status(supervisor.site.state)
    assert status is not None
    assert status.state is JoinState.OVER
    assert told == [
        "query.result, round 1: ready",
        "the study is over; `fedcondense-site status` says what it gave",
    ]


@pytest.mark.parametrize(
    ("kind", "outcome"), [("query.result", "failed"), ("train.contribute", "sealed")]
)
def test_nothing_else_that_is_answered_ends_a_study(
    supervisor: Supervisor, kind: str, outcome: str
) -> None:
    answered(supervisor.site.state, kind, outcome)

    supervisor._report(1)

    assert supervisor.over_since is None


def test_the_same_site_can_join_the_next_study(lakeside: Hospital) -> None:
    answered(lakeside.state, "query.result")
    site = load_site(lakeside.settings)

    again = Supervisor(lakeside.settings, site, server_of(site), lambda line: None)
    again._report(1)

    assert again.over_since is None  # what was told before it began is an old story


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"study_digest": "ab" * 32}, "site.toml pins another"),
        ({"run_signing_fingerprint": "0" * 64}, "not a fingerprint"),
        ({"server": {"address": "a:1", "authority": "none.pem"}}, "no such file"),
    ],
)
def test_a_site_that_is_not_ready_starts_nothing(
    lakeside: Hospital, change: dict[str, object], error: str
) -> None:
    lakeside.change(**change)
    told: list[str] = []

    with pytest.raises(SettingsError, match=error):
        join(lakeside.settings, tell=told.append)

    assert told == []
    assert not (lakeside.state / "bin").exists()


def test_a_site_without_its_keys_starts_nothing(lakeside: Hospital) -> None:
    (lakeside.state / "keys" / "node.key").unlink()

    with pytest.raises(KeyFileError, match=r"node\.key"):
        join(lakeside.settings, tell=lambda line: None)

    assert not is_joined(lakeside.state)


def test_a_second_join_is_refused(lakeside: Hospital) -> None:
    with only_one(lakeside.state), pytest.raises(SettingsError, match="takes part already"):
        join(lakeside.settings, tell=lambda line: None)
