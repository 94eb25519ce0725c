"""The server's command as a process: who opens its keys, and what survives a death.

A site is a SuperNode with the installed ClientApp, whose condensation is a stand-in.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from deployment_kit import LONGEST, Consortium, make_consortium, processes_of, serve, wait_for

from fedcondense.config.study import LARGEST_CONTRIBUTION
from fedcondense.files.storage import read_json
from fedcondense.flower.server_status import ServerStatus, server_status
from fedcondense.server.aggregate import read_global_set
from fedcondense.server.current_run import CurrentRun
from fedcondense.server.events import events
from fedcondense.server.intake import rejections

pytestmark = pytest.mark.e2e
WATCH = Path(__file__).parent / "watch" / "sitecustomize.py"
Process = subprocess.Popen[str]


def current(consortium: Consortium) -> CurrentRun:
    found = consortium.current()
    assert found is not None
    return found


def status(consortium: Consortium) -> ServerStatus:
    return server_status(consortium.office.config)


def is_serving(consortium: Consortium, server: Process) -> bool:
    assert server.poll() is None, server.communicate()[1]
    return status(consortium).serving


def stored(consortium: Consortium) -> set[str]:
    found = consortium.current()
    paths = found.run.path.glob("round-001/sealed/[!.]*.sealed") if found else ()
    return {path.stem for path in paths}


def ended(server: Process, consortium: Consortium) -> tuple[int, str]:
    """The exit code and what it said."""
    try:
        _, said = server.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        server.kill()
        pytest.fail(f"the server goes on\n{server.communicate()[1]}\n{consortium.log()}")
    return server.returncode, said


def is_replaced(consortium: Consortium, server: Process, before: set[int]) -> bool:
    """Whether there is another ServerApp than before."""
    assert server.poll() is None, server.communicate()[1]
    return bool(set(processes(consortium, "flwr-serverapp")) - before)


def processes(consortium: Consortium, command: str) -> list[int]:
    """The server's processes (not the sites') that run a command."""
    runs = consortium.office.config.runs
    return [pid for pid, line in processes_of(runs).items() if command in line]


@contextlib.contextmanager
def serving(consortium: Consortium, *, hook: Path | None = None) -> Iterator[Process]:
    """A server; at the end it and all of its processes are gone."""
    server = serve(consortium.office, hook=hook)
    try:
        yield server
    finally:
        if server.poll() is None:
            server.kill()
        if server.stdout is not None and not server.stdout.closed:
            server.communicate()
        wait_for(lambda: not processes_of(consortium.office.config.runs), 60)


@contextlib.contextmanager
def online(consortium: Consortium, *names: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(consortium.sites[name].online())
        yield


@dataclass(frozen=True)
class Finished:
    """A study that was played undisturbed, every process of the server watched."""

    consortium: Consortium
    code: int
    said: str
    hook: Path

    @property
    def run(self) -> CurrentRun:
        return current(self.consortium)

    def watched(self, command: str) -> dict[str, str]:
        """What processes of one command noted, by process."""
        logs = {path.stem: path.read_text() for path in self.hook.glob("*.log")}
        return {pid: text for pid, text in logs.items() if command in text.partition("\n")[0]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    consortium = make_consortium(folder / "office", sites=2, quorum=2)
    hook = folder / "hook"
    hook.mkdir()
    shutil.copy(WATCH, hook)
    with serving(consortium, hook=hook) as server, online(consortium, *consortium.sites):
        code, said = ended(server, consortium)
    return Finished(consortium, code, said, hook)


def test_a_study_is_played_from_the_first_request_to_the_report(finished: Finished) -> None:
    run = finished.run.run

    assert finished.code == 0, finished.said
    union = read_global_set(run.global_set(1))
    assert set(union.sites) == {"site-1", "site-2"}
    assert read_json(run.done(1)) == {"global_set": union.sha256, "round": 1}
    assert "test" in read_json(run.scores(1))
    assert run.report_json_path.exists()


def test_the_opening_key_is_gone_at_the_end(finished: Finished) -> None:
    assert finished.run.is_finished
    assert not finished.run.key_path.exists()
    assert not list(finished.consortium.office.config.keys.glob("opening-*"))


def test_no_flower_process_opens_the_opening_or_the_run_signing_key(finished: Finished) -> None:
    parents = finished.watched("fedcondense.cli.server")
    flower = {
        name: finished.watched(name)
        for name in ("superlink_process", "flower-superexec", "flwr-serverapp", "flwr run")
    }

    assert all(flower.values()), {name: len(logs) for name, logs in flower.items()}
    for logs in flower.values():
        assert not any("opened" in text for text in logs.values())
    [parent] = [text for text in parents.values() if "opened" in text]
    opened = {Path(line.partition(" ")[2]).name[:7] for line in parent.splitlines()[1:]}
    assert {"opening", "run-sig"} <= opened, "the hook does not see what the parent opens"


def test_the_serverapp_loads_no_torch(finished: Finished) -> None:
    apps = finished.watched("flwr-serverapp")

    assert apps
    assert not any("imported torch" in text for text in apps.values())
    parents = finished.watched("fedcondense.cli.server").values()
    assert any("imported torch" in text for text in parents), "the hook does not see torch"


def test_what_is_told_of_a_run_is_codes_and_counts(finished: Finished) -> None:
    told = [event["event"] for event in events(finished.run.run)]

    assert told == [
        "begun",
        "enrolled",
        "asking",
        "concluding",
        "concluded",
        "told",
        "key deleted",
        "finished",
    ]


def test_a_finished_study_is_not_played_again(finished: Finished) -> None:
    server = serve(finished.consortium.office)
    printed, _ = server.communicate(timeout=LONGEST)

    assert server.returncode == 0
    assert "report.html" in printed
    assert status(finished.consortium).is_well


def test_whatever_dies_is_started_again_and_the_study_ends_well(
    tmp_path: Path, finished: Finished
) -> None:
    consortium = make_consortium(tmp_path, sites=2, quorum=2)
    with serving(consortium) as server:
        for command in ("flower-superexec", "superlink_process", "flwr-serverapp"):
            wait_for(lambda: is_serving(consortium, server))
            wait_for(lambda: processes(consortium, "flwr-serverapp"))
            before = set(processes(consortium, "flwr-serverapp"))
            for pid in processes(consortium, command):
                os.kill(pid, signal.SIGKILL)
            wait_for(lambda before=before: set(processes(consortium, "flwr-serverapp")) - before)
        with online(consortium, *consortium.sites):
            code, said = ended(server, consortium)

    assert code == 0, said
    assert said.count("starting it again") == 2  # Flower itself starts a lost ServerApp again
    union = read_global_set(current(consortium).run.global_set(1))
    assert union.sha256 == read_global_set(finished.run.run.global_set(1)).sha256


def test_a_server_that_is_killed_after_half_of_the_contributions_goes_on(
    tmp_path: Path, finished: Finished
) -> None:
    consortium = make_consortium(tmp_path, sites=2, quorum=2)
    first, second = consortium.sites.values()
    second.behave(seconds=20)  # it condenses through the death of the server
    with online(consortium, *consortium.sites):
        with serving(consortium) as server:
            wait_for(lambda: stored(consortium) == {"site-1"} and second.starts())
            key = current(consortium).key_path.read_bytes()
            server.kill()
            wait_for(lambda: not processes_of(consortium.office.config.runs), 60)
            assert status(consortium).running is False

        with serving(consortium) as again:
            wait_for(lambda: is_serving(consortium, again))
            assert current(consortium).key_path.read_bytes() == key
            code, said = ended(again, consortium)

    assert code == 0, said
    assert len(first.starts()) == 1
    union = read_global_set(current(consortium).run.global_set(1))
    assert union.sha256 == read_global_set(finished.run.run.global_set(1)).sha256
    assert "resumed" in [event["event"] for event in events(current(consortium).run)]


def test_below_the_quorum_nothing_is_opened_and_the_same_command_asks_again(
    tmp_path: Path,
) -> None:
    consortium = make_consortium(tmp_path, sites=2, quorum=2)
    consortium.sites["site-2"].behave(raises="DataError")
    with online(consortium, *consortium.sites):
        with serving(consortium) as server:
            code, said = ended(server, consortium)
        run = current(consortium)

        assert code == 1
        assert "error FC501: 1 of 2 sites contributed, the quorum is 2: site-2 FC202" in said
        assert not run.run.verdicts(1).exists()
        assert run.key_path.exists()

        consortium.sites["site-2"].behave()
        with serving(consortium) as server:
            code, said = ended(server, consortium)

    assert code == 0, said
    assert len(consortium.sites["site-1"].starts()) == 1


def test_the_largest_contribution_passes_the_door(tmp_path: Path) -> None:
    consortium = make_consortium(tmp_path, sites=1)
    consortium.sites["site-1"].behave(length=LARGEST_CONTRIBUTION)
    with serving(consortium) as server, online(consortium, "site-1"):
        code, said = ended(server, consortium)

    assert code == 1
    assert "1 sites contributed, the quorum is 1: site-1 FC402" in said
    rejected = rejections(current(consortium).run, 1)
    assert rejected == {"site-1": {"magic": 1}}, "all of its bytes came through, and were zeros"


def test_a_stop_ends_every_process_and_the_same_command_goes_on(tmp_path: Path) -> None:
    consortium = make_consortium(tmp_path, sites=1)
    with serving(consortium) as server:
        wait_for(lambda: is_serving(consortium, server))
        server.send_signal(signal.SIGTERM)
        code, said = ended(server, consortium)

    assert code == 143
    assert said.splitlines()[-2:] == [
        "fedcondense-server: error FC103: stopped by the operator",
        "fedcondense-server: hint: the same command goes on where it was",
    ]
    assert not processes_of(consortium.office.config.runs)
    assert current(consortium).key_path.exists()


def test_a_site_that_is_revoked_while_the_run_goes_on_is_out(tmp_path: Path) -> None:
    consortium = make_consortium(tmp_path, sites=2, quorum=1)
    consortium.sites["site-2"].behave(seconds=3600)
    with serving(consortium) as server, online(consortium, *consortium.sites):
        wait_for(lambda: stored(consortium) == {"site-1"})
        consortium.office.register.revoke("site-2", now=0.0)
        code, said = ended(server, consortium)

    assert code == 0, said
    union = read_global_set(current(consortium).run.global_set(1))
    assert set(union.sites) == {"site-1"}
    assert {site.name: site.standing for site in status(consortium).sites} == {
        "site-1": "active",
        "site-2": "revoked",
    }
