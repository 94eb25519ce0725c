"""The site's supervisor: keeps Flower's SuperNode running, and says in one line why it does not.

A SuperNode that is restarted within a minute of being killed is refused by the server, which still
counts it as online; one that is not enrolled yet is refused too. Both end the process, so it is
started again and again, with growing pauses. Nothing that it received outlives it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import fedcondense
from fedcondense.config.site import ServerAddress, SiteConfig, load_site
from fedcondense.errors import SettingsError
from fedcondense.flower.health import is_serving
from fedcondense.flower.home import SITE_CONFIG
from fedcondense.flower.installed_app import allowed_bundles
from fedcondense.flower.local_commands import CLIENT_MODULE, SUPEREXEC, write_commands
from fedcondense.flower.notify import READY, STOPPING, notify
from fedcondense.flower.processes import Child, Children, free_port, program
from fedcondense.flower.supernode_log import SupernodeLog
from fedcondense.site.join_status import JoinState, JoinStatus, only_one, write_status
from fedcondense.site.last_request import LastRequest, last_request
from fedcondense.site.readiness import (
    officer_of,
    own_keys,
    pinned_fingerprint,
    private_folder,
    releasable_study,
    server_of,
)

HOST = "127.0.0.1"
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0  # seconds between two starts
STEADY = 60.0  # seconds of uptime after which the pauses begin anew
LONGEST_START = 120.0  # seconds until the health service answers
LONGEST_STOP = 15.0  # seconds for a SuperNode to sign off
LOOK = 0.5  # seconds between two looks
TICK = 0.1  # seconds until a signal is heard at the latest
LOOK_AT_ALL = 5.0  # seconds between two looks at all processes
PARTING = 15.0  # seconds in which a site's last answer reaches the server
DEAF = 20.0  # seconds that a SuperNode may be without its superexec
# a SuperNode whose client died while it handed its answer over waits for the rest for ever
STALLED = 180.0  # seconds that an answer may take to leave when nobody hands over more of it,
SLOWEST_LINK = 64_000  # and bytes a second beside them
# large tensors stay on the heap: returning them after each step is slow
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "8589934592"}
SIGNALS = (signal.SIGTERM, signal.SIGINT)
_NOT_INHERITED = ("FLWR_", "FEDCONDENSE_", "RAY_", "NOTIFY_SOCKET")

Tell = Callable[[str], None]


def join(path: Path, *, tell: Tell) -> None:
    """Take part in the study of a SITE.toml until it is over, or this process is told to stop.

    Args:
        path: the SITE.toml.
        tell: given one line at a time, which holds codes, counts and fingerprints alone.

    Raises:
        SettingsError: the site is not ready to take part, or takes part already.
        KeyFileError: one of its keys cannot be used.
        FederationError: Flower is not installed as it should be.
    """
    site = load_site(path)
    signing, node = own_keys(site)
    study, pinned, server = releasable_study(site), pinned_fingerprint(site), server_of(site)
    officer_of(site)
    private_folder(site.state)
    tell(f"site {site.name}, study {study.name}, digest {study.digest}")
    tell(f"signing key {signing.fingerprint}")
    tell(f"node key {node.fingerprint}")
    tell(f"follows run descriptions of {pinned}")
    with only_one(site.state):
        Supervisor(path.absolute(), site, server, tell).run()


def next_pause(previous: float, uptime: float) -> float:
    """Seconds until the next start: 2, doubling to 60, anew after 60 seconds of uptime.

    `previous` is the pause before this start, 0 before the first.
    """
    if uptime >= STEADY or previous == 0:
        return FIRST_PAUSE
    return min(2 * previous, LONGEST_PAUSE)


@dataclass
class Supervisor:
    """One SuperNode after the other, until the study is over or somebody stops it."""

    path: Path
    site: SiteConfig
    server: ServerAddress
    tell: Tell
    stopping: bool = False  # no Event: a signal's handler could wait for a lock of its own thread

    def __post_init__(self) -> None:
        self.folder = private_folder(self.site.state / "flower")
        self.home = self.folder / "home"
        self.log = SupernodeLog(self.folder / "supernode.log")
        self.status = JoinStatus(os.getpid(), fedcondense.__version__, int(time.time()))
        self.told = last_request(self.site.state)
        self.over_since: float | None = None

    def run(self) -> None:
        """Keep a SuperNode running until a signal comes, or the study is over."""
        pause = 0.0
        with self._signals():
            while not self.stopping:
                began = time.monotonic()
                reason = self._live_once()
                if self.stopping:
                    break
                pause = next_pause(pause, time.monotonic() - began)
                self.tell(f"{reason}; trying again in {pause:.0f} s")
                self._note(self.status.waiting(reason))
                self._rest(pause)
        if self.over_since is None:
            self._note(self.status.stopped())
            self.tell("stopped")
        else:
            self._note(self.status.over())
            self.tell("the study is over; `fedcondense-site status` says what it gave")

    def stop(self, *_: int | FrameType | None) -> None:
        """Sign off and end; a signal's handler."""
        self.stopping = True

    def _rest(self, seconds: float) -> bool:
        """Wait; whether nobody has told it to stop."""
        until = time.monotonic() + seconds
        while not self.stopping and time.monotonic() < until:
            time.sleep(min(TICK, seconds))
        return not self.stopping

    def _live_once(self) -> str:
        """Start a SuperNode and watch it to its end; why it ended."""
        commands = write_commands(self.site.state / "bin", allowed_bundles(self.site.bundles))
        shutil.rmtree(self.home, ignore_errors=True)
        private_folder(self.home)
        health = free_port()
        self.log.begin()
        self._note(self.status.starting(health))
        with Children(self._environment(commands), self.log.path, self.home) as children:
            child = children.start(self._command(health))
            reason = self._watch(child, children, health)
            self._sign_off(child)
        return reason

    def _watch(self, child: Child, children: Children, health: int) -> str:
        """Wait until the SuperNode ends, or should; why."""
        began = heard = moved = looked = time.monotonic()
        while self._rest(LOOK):
            now = time.monotonic()
            if child.poll() is not None:
                return self.log.reason(child.returncode)
            if self.status.state is JoinState.STARTING and now - began > LONGEST_START:
                return "the SuperNode did not start in time"
            if now - looked > LOOK_AT_ALL:
                looked = now
                heard = now if children.has_running(SUPEREXEC) else heard
                moved = now if self._moves(children) else moved
            if now - heard > DEAF:
                return "the SuperNode lost its superexec"
            if now - moved > STALLED and now - moved > self._longest_sending():
                return "the SuperNode waits for an answer whose process is gone"
            self._report(health)
            self._part(now)
        return "stopped"

    def _moves(self, children: Children) -> bool:
        """Whether no answer is being sent, or the process that gives it lives."""
        return not self.log.is_sending() or children.has_running(CLIENT_MODULE)

    def _longest_sending(self) -> float:
        """Seconds that the largest sealed contribution may take over a slow link."""
        sealed = self.site.state.glob("runs/*/round-*/sealed/*.sealed")
        return STALLED + max((path.stat().st_size for path in sealed), default=0) / SLOWEST_LINK

    def _part(self, now: float) -> None:
        """Stop after the study's last message, once the answer to it has had time to leave."""
        if self.over_since is not None and now - self.over_since > PARTING:
            self.stop()

    def _report(self, health: int) -> None:
        """Tell what is new: the process, its connection, requests that were answered."""
        self.log.keep_short()
        if self.status.state is JoinState.STARTING and is_serving(health, seconds=LOOK):
            self._note(self.status.running())
            notify(READY)
            self.tell(f"SuperNode started, connecting to {self.server.address}")
        if not self.status.connected and self.log.is_connected():
            self._note(self.status.connected_now())
            self.tell("connected")
        newest: LastRequest | None = last_request(self.site.state)
        if newest is not None and newest != self.told:
            self.told = newest
            self.tell(newest.line())
            if newest.ends_study:
                self.over_since = time.monotonic()

    def _sign_off(self, child: Child) -> None:
        """Let the SuperNode tell the server that it goes; whatever is left is killed afterwards."""
        if self.stopping:
            notify(STOPPING)
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(LONGEST_STOP)

    def _note(self, status: JoinStatus) -> None:
        self.status = status
        write_status(self.site.state, self.status)

    def _command(self, health: int) -> list[str]:
        options = {
            "--superlink": self.server.address,
            "--root-certificates": str(self.server.authority),
            "--auth-supernode-private-key": str(self.site.node_key),
            "--host": HOST,
            "--port": str(free_port()),
            "--node-config": f"{SITE_CONFIG}={_quoted(self.path)}",
            "--health-server-address": f"{HOST}:{health}",
        }
        return [program("flower-supernode"), *(part for pair in options.items() for part in pair)]

    def _environment(self, commands: str) -> dict[str, str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)
        }
        return {
            **inherited,
            **ALLOCATOR,
            "PATH": commands,
            "FLWR_HOME": str(self.home.absolute()),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",
            "OMP_NUM_THREADS": str(self.site.threads),
        }

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT end the loop instead of this process."""
        before = {number: signal.signal(number, self.stop) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _quoted(path: Path) -> str:
    """A path as a literal string of TOML, which is how Flower reads it.

    Raises:
        SettingsError: there is no such string.
    """
    text = str(path)
    if "'" in text or not text.isprintable():
        raise SettingsError(
            f"{path.name}: its path holds a quote or a control character",
            hint="move it to a folder with a plain name",
        )
    return f"'{text}'"
