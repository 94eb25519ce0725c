"""What a supervisor says of itself, and how it is known to live."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fedcondense.errors import SettingsError
from fedcondense.site.join_status import (
    JoinState,
    JoinStatus,
    is_joined,
    only_one,
    read_status,
    write_status,
)
from fedcondense.site.last_request import LastRequest, last_request, note_request

HOLD = """
import sys, time
from pathlib import Path
from fedcondense.site.join_status import only_one
with only_one(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(300)
"""


def test_a_status_comes_back_as_it_was_written(tmp_path: Path) -> None:
    status = JoinStatus(os.getpid(), "0.1.0", 5).starting(1234).running().connected_now()

    write_status(tmp_path, status)

    assert read_status(tmp_path) == status
    assert (status.state, status.connected, status.health_port) == (JoinState.RUNNING, True, 1234)


def test_a_pause_keeps_why_and_counts_the_restart() -> None:
    running = JoinStatus(1, "0.1.0", 5).starting(1234).running().connected_now()

    paused = running.waiting("it ended").starting(77).waiting("again")

    assert (paused.restarts, paused.last_exit, paused.connected) == (2, "again", False)
    assert paused.stopped().state is JoinState.STOPPED


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"state": "asleep"}', "null"])
def test_a_status_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    assert read_status(tmp_path) is None
    (tmp_path / "status.json").write_text(text)

    assert read_status(tmp_path) is None


def test_a_disk_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "status.json").mkdir()
    (tmp_path / "last-request.json").mkdir()

    write_status(tmp_path, JoinStatus(1, "0.1.0", 5))
    note_request(tmp_path, LastRequest(1, "query.hello", 1, "ready", "", "0.1.0"))

    assert sorted(path.name for path in tmp_path.iterdir()) == ["last-request.json", "status.json"]


def test_a_second_supervisor_is_kept_out(tmp_path: Path) -> None:
    assert not is_joined(tmp_path)
    with only_one(tmp_path):
        assert is_joined(tmp_path)
        with pytest.raises(SettingsError, match="takes part already"), only_one(tmp_path):
            pass

    assert not is_joined(tmp_path)


def test_a_killed_supervisor_lives_no_longer(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert is_joined(tmp_path)

        holder.send_signal(signal.SIGKILL)
        holder.wait()

    assert not is_joined(tmp_path)


def test_the_last_request_is_one_line_of_codes(tmp_path: Path) -> None:
    request = LastRequest(7, "train.contribute", 2, "failed", "FC404", "0.1.0")
    assert last_request(tmp_path) is None

    note_request(tmp_path, request)

    assert last_request(tmp_path) == request
    assert request.line() == "train.contribute, round 2: failed FC404"
    assert LastRequest(7, "query.hello", 1, "ready", "", "0.1.0").line().endswith(": ready")
