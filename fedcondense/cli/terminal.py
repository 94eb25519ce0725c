"""What a command shows: progress on a terminal, plain lines elsewhere, errors as two lines."""

from __future__ import annotations

import io
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from fedcondense.errors import FedcondenseError, InternalError, Interrupted
from fedcondense.progress import Step, Watch

# Large tensors stay on the heap: returning them to the system after each step is slow, by how much
# `make bench` prints.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "8589934592"}
STOPPED = 128 + signal.SIGTERM  # exit code, as of shells
PLAIN_EVERY = 5.0  # seconds between two plain lines of one stage


class _Rate(ProgressColumn):
    """Steps per second, or seconds per step where it is slower."""

    def render(self, task: Task) -> Text:
        """The rate, once it is known."""
        if not task.speed:
            return Text("")
        fast = task.speed >= 1
        return Text(f"{task.speed:.1f}/s" if fast else f"{1 / task.speed:.1f} s each", "cyan")


@contextmanager
def watch_on_terminal() -> Iterator[Watch]:
    """A `Watch` with one bar a stage, or plain lines where standard error is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _PlainLines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, speed_estimate_period=60.0) as progress:
        yield _Bars(progress)


class _Bars:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, step: Step) -> None:
        task = self._tasks.get(step.stage)
        if task is None or self._begins_anew(task, step):
            task = self._tasks[step.stage] = self._progress.add_task(step.stage, total=step.total)
        self._progress.update(task, completed=step.done, total=step.total)

    def _begins_anew(self, task: TaskID, step: Step) -> bool:
        """The stage of a further repetition gets a bar of its own."""
        return any(t.id == task and t.completed > step.done for t in self._progress.tasks)


class _PlainLines:
    def __init__(self) -> None:
        self._began: dict[str, float] = {}
        self._last: dict[str, tuple[float, int]] = {}

    def __call__(self, step: Step) -> None:
        now = time.monotonic()
        before, done = self._last.get(step.stage, (float("-inf"), -1))
        if step.done < done:
            self._began.pop(step.stage, None)
        began = self._began.setdefault(step.stage, now)
        finished = step.done == step.total and done != step.total
        if finished or (step.done != done and now - before >= PLAIN_EVERY):
            self._last[step.stage] = (now, step.done)
            sys.stderr.write(f"{step.stage} {step.done}/{step.total}{_left(step, now - began)}\n")
            sys.stderr.flush()


def _left(step: Step, elapsed: float) -> str:
    if elapsed < 1 or step.done in (0, step.total):
        return ""
    rate = step.done / elapsed
    return f", {rate:.1f}/s, {(step.total - step.done) / rate:.0f} s left"


def escape_unprintable() -> None:
    """Let standard output show what it cannot encode, such as odd file names, as escapes.

    Standard error does so by itself.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


class Stopped(KeyboardInterrupt):
    """A service manager's stop: a Ctrl-C to all that runs, and no failure of the service."""


def heed_stop() -> None:
    """Let SIGTERM end this process as Ctrl-C does, with the exit code that says so."""

    def stop(*_: object) -> NoReturn:
        raise Stopped

    signal.signal(signal.SIGTERM, stop)


@contextmanager
def operator_errors(program: str) -> Iterator[None]:
    """Leave with the documented exit code; an error is two lines on standard error, never a trace.

    Exit codes: 0 done, 1 error, 2 usage or settings, 3 release refused, 143 stopped by SIGTERM, as
    of a process that did not catch it; systemd is told that it is no failure. The trace of an error
    that nobody foresaw goes to a file that the hint names.
    """
    try:
        yield
    except FedcondenseError as error:
        _leave(program, error)
    except KeyboardInterrupt as stop:
        said = Interrupted("stopped by the operator", hint="the same command goes on where it was")
        _leave(program, said, STOPPED if isinstance(stop, Stopped) else said.exit_code)
    except Exception as error:  # noqa: BLE001  (the last handler before the operator)
        _leave(program, _unforeseen(error))


def _unforeseen(error: Exception) -> InternalError:
    with tempfile.NamedTemporaryFile(
        "w", prefix="fedcondense-", suffix=".log", delete=False, encoding="utf-8"
    ) as file:
        traceback.print_exception(error, file=file)
    return InternalError(
        f"unforeseen {type(error).__name__}", hint=f"please report it with {file.name}"
    )


def _leave(program: str, error: FedcondenseError, exit_code: int | None = None) -> NoReturn:
    sys.stderr.write(f"{program}: error {error.code}: {error.message}\n")
    sys.stderr.write(f"{program}: hint: {error.hint}\n")
    sys.exit(error.exit_code if exit_code is None else exit_code)
