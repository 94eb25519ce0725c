"""What the supervisor of a joined site says of itself, on disk: STATE/status.json."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from fedcondense.errors import SettingsError
from fedcondense.files.lock import is_locked, locked_if_free
from fedcondense.files.storage import read_json, write_json


class JoinState(StrEnum):
    """What the supervisor does."""

    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"
    STOPPED = "stopped"
    OVER = "over"  # the study is


@dataclass(frozen=True)
class JoinStatus:
    """The supervisor and its SuperNode.

    `since` and `changed` are in seconds since 1970 UTC; `health_port` is that of the SuperNode's
    health service on this machine, `last_exit` why the last SuperNode ended, empty for the first.
    """

    process: int
    version: str
    since: int
    state: JoinState = JoinState.STARTING
    changed: int = 0
    restarts: int = 0
    connected: bool = False
    health_port: int = 0
    last_exit: str = ""

    def starting(self, health_port: int) -> JoinStatus:
        """With a SuperNode that has just been started."""
        return self._moved(
            replace(self, state=JoinState.STARTING, health_port=health_port, connected=False)
        )

    def running(self) -> JoinStatus:
        """With a SuperNode that is up."""
        return self._moved(replace(self, state=JoinState.RUNNING))

    def connected_now(self) -> JoinStatus:
        """With a SuperNode that the server has accepted."""
        return self._moved(replace(self, connected=True))

    def waiting(self, last_exit: str) -> JoinStatus:
        """Between two SuperNodes."""
        return self._moved(
            replace(
                self,
                state=JoinState.WAITING,
                connected=False,
                restarts=self.restarts + 1,
                last_exit=last_exit,
            )
        )

    def stopped(self) -> JoinStatus:
        """After the last SuperNode."""
        return self._moved(replace(self, state=JoinState.STOPPED, connected=False))

    def over(self) -> JoinStatus:
        """After the study: the server told what it gave."""
        return self._moved(replace(self, state=JoinState.OVER, connected=False))

    @staticmethod
    def _moved(status: JoinStatus) -> JoinStatus:
        return replace(status, changed=int(time.time()))


def write_status(state: Path, status: JoinStatus) -> None:
    """Write the status; a full disk is no reason to stop."""
    with contextlib.suppress(OSError):
        write_json(state / "status.json", asdict(status))


def read_status(state: Path) -> JoinStatus | None:
    """The newest status, or None if the site never joined."""
    try:
        values = read_json(state / "status.json")
        return JoinStatus(**{**values, "state": JoinState(values["state"])})
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


@contextlib.contextmanager
def only_one(state: Path) -> Iterator[None]:
    """Keep a second supervisor out.

    Raises:
        SettingsError: there is one.
    """
    with locked_if_free(_lock(state)) as free:
        if not free:
            raise SettingsError(
                "this site takes part already", hint="see `fedcondense-site status`"
            )
        yield


def is_joined(state: Path) -> bool:
    """Whether a supervisor lives; its lock tells, for it ends with the process."""
    return is_locked(_lock(state))


def _lock(state: Path) -> Path:
    return state / "join.lock"
