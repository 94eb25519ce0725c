"""Flower's processes on this machine: started apart from the terminal, and all of them stopped.

Flower and Ray start processes of their own in several sessions. Whatever descends from ours
carries a mark in its environment, by which it is found again; where there is no /proc, Flower's own
rule must do: each of its processes ends when its parent does.

Run as a program, this module is the guard that does the stopping if the parent could not: its
standard input ends with the parent, however that dies.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fedcondense.errors import FederationError

MARK = "FEDCONDENSE_MARK"
_PROC = Path("/proc")
_PARENT_FIELD = 1  # of /proc/PID/stat, counted from the state that follows the name
_ZOMBIE = "Z"

Child = subprocess.Popen[bytes]


class Children:
    """Processes that are started with one environment and stopped together.

    As a context it stops all of them at its end, also what they started; `scratch` is removed.
    """

    def __init__(self, environment: Mapping[str, str], log: Path, scratch: Path) -> None:
        """Give the environment of all, the file for what they print, and a folder of theirs."""
        self._mark = os.urandom(16).hex()
        self._environment = {**environment, MARK: self._mark}
        self._log = log
        self._scratch = scratch
        self._started: list[Child] = []

    def __enter__(self) -> Children:
        command = [sys.executable, "-m", __name__, self._mark, str(self._scratch)]
        unmarked = {key: value for key, value in self._environment.items() if key != MARK}
        self._guard = subprocess.Popen(
            command, stdin=subprocess.PIPE, env=unmarked, start_new_session=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        stop(self._mark, self._started)
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._guard.communicate()

    def start(self, command: Sequence[str]) -> Child:
        """Start a process whose output goes to the log; a terminal's Ctrl-C does not reach it."""
        with self._log.open("ab") as log:
            child = subprocess.Popen(
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started = [*(one for one in self._started if one.poll() is None), child]
        return child

    def has_running(self, command: str) -> bool:
        """Whether one of these processes, or of their descendants, runs a command of that name."""
        return not _PROC.exists() or any(command in _names(p) for p in family(self._mark))


def program(name: str) -> str:
    """The path of one of Flower's commands, that of this Python's environment if there is one.

    Raises:
        FederationError: it is not installed.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise FederationError(
            f"the command {name} is not installed",
            hint="pip install 'flwr[simulation]>=1.41,<1.42'",
        )
    return found


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port of this machine on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def stop(mark: str, started: Sequence[Child] = (), *, seconds: float = 10.0) -> None:
    """Kill every process with `mark` and their descendants, and wait until they are gone.

    Killing is safe here: what must outlive a process is written atomically.
    """
    for child in started:
        if child.poll() is None:  # the number of one that ended may be another process' by now
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
    until = time.monotonic() + seconds
    while (alive := family(mark)) and time.monotonic() < until:
        for process in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)
    for child in started:
        child.wait()


def family(mark: str) -> set[int]:
    """Living processes whose environment holds `mark`, and their descendants."""
    parents = dict(_parents())
    wanted = f"{MARK}={mark}".encode("ascii")
    members = {process for process in parents if wanted in _environment(process)}
    while more := {p for p, parent in parents.items() if parent in members} - members:
        # superexec forbids reading its environment, but not its parent's
        members |= more
    return members


def _parents() -> Iterator[tuple[int, int]]:
    """Process → its parent, of all that live."""
    for folder in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # the name may hold spaces and brackets: all fields are behind its last bracket
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if fields[0] != _ZOMBIE:
                yield int(folder.name), int(fields[_PARENT_FIELD])


def _names(process: int) -> set[str]:
    """The last parts of all paths and words on a process's command line."""
    with contextlib.suppress(OSError):
        line = (_PROC / str(process) / "cmdline").read_text(errors="replace")
        return {word.rpartition("/")[2] for word in line.split("\0")}
    return set()


def _environment(process: int) -> list[bytes]:
    with contextlib.suppress(OSError):
        return (_PROC / str(process) / "environ").read_bytes().split(b"\0")
    return []


def _guard(mark: str, scratch: Path) -> None:
    with contextlib.suppress(OSError):
        sys.stdin.buffer.read()
    stop(mark)
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    _guard(sys.argv[1], Path(sys.argv[2]))
