"""Whatever was started is stopped: children, their own sessions, and after a parent's death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedcondense.flower.processes import MARK, Children, family, stop

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
# a child in a session of its own, an orphan, and a child that does not show the mark
BROOD = f"""
echo ${MARK} > $0/mark
setsid sleep 300 &
(sleep 300 &)
env -i /bin/sleep 300 &
touch $0/ready
sleep 300
"""
PARENT = """
import sys, time
from pathlib import Path
from fedcondense.flower.processes import Children
folder = Path(sys.argv[1])
environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": sys.argv[3]}
with Children(environment, folder / "log", folder / "s") as children:
    children.start(["sh", "-c", sys.argv[2], str(folder)])
    time.sleep(300)
"""


def brood_of(folder: Path) -> tuple[str, set[int]]:
    """The mark in `folder`, once all four sleepers and their shell are there."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        mark = (folder / "mark").read_text().strip() if (folder / "ready").exists() else "none"
        if len(members := family(mark)) >= 5:
            return mark, members
        time.sleep(0.02)
    pytest.fail("the processes never started")


def all_gone(mark: str, seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while family(mark) and time.monotonic() < until:
        time.sleep(0.02)
    return not family(mark)


def children(folder: Path) -> Children:
    package = str(Path(__file__).parents[2])
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": package}
    (folder / "scratch").mkdir()
    return Children(environment, folder / "log", folder / "scratch")


def test_at_the_end_all_descendants_are_gone_also_those_in_sessions_of_their_own(
    tmp_path: Path,
) -> None:
    with children(tmp_path) as started:
        child = started.start(["sh", "-c", BROOD, str(tmp_path)])
        mark, members = brood_of(tmp_path)

    assert child.poll() == -signal.SIGKILL
    assert child.pid in members
    assert family(mark) == set()
    assert not (tmp_path / "scratch").exists()


def test_an_exception_stops_them_too(tmp_path: Path) -> None:
    def interrupted() -> None:
        with children(tmp_path) as started:
            started.start(["sh", "-c", BROOD, str(tmp_path)])
            brood_of(tmp_path)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert family((tmp_path / "mark").read_text().strip()) == set()


def test_a_terminals_interrupt_does_not_reach_them(tmp_path: Path) -> None:
    with children(tmp_path) as started:
        child = started.start(["sleep", "300"])

        assert os.getsid(child.pid) == child.pid != os.getsid(0)


def test_a_parent_that_is_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    package = str(Path(__file__).parents[2])
    (tmp_path / "s").mkdir()
    command = [sys.executable, "-c", PARENT, str(tmp_path), BROOD, package]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": package}) as parent:
        mark, _ = brood_of(tmp_path)

        parent.kill()
        parent.wait()

    assert all_gone(mark)
    until = time.monotonic() + 10
    while (tmp_path / "s").exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert not (tmp_path / "s").exists()


def test_only_what_carries_the_mark_is_stopped(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "300"], env={MARK: "another"}) as bystander:
        stop("ours")

        assert bystander.poll() is None
        bystander.kill()


def test_a_child_that_ended_long_ago_is_not_killed_by_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda group, number: killed.append(group))
    with subprocess.Popen(["true"]) as ended:
        ended.wait()

    stop("ours", [ended])

    assert killed == []


def test_what_they_print_stands_in_the_log(tmp_path: Path) -> None:
    with children(tmp_path) as started:
        started.start(["sh", "-c", "echo out; echo err >&2"]).wait()

    assert (tmp_path / "log").read_text() == "out\nerr\n"
