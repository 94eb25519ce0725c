"""The server's SuperLink, as the parent keeps it: started, told who may connect, asked, stopped.

The public port shows nothing before `open`: until then a SuperNode hears that it should come again.
Whatever dies in here ends `is_alive`, and the parent starts all of it again with the same database.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import tomli_w

import fedcondense
from fedcondense.config.server import Address, ServerConfig
from fedcondense.config.study import LARGEST_CONTRIBUTION
from fedcondense.errors import FederationError
from fedcondense.exchange.enrolment_request import EnrolmentRequest
from fedcondense.exchange.node_key import node_key_pem
from fedcondense.flower.control import FINISHED, HOST, Control, https_status
from fedcondense.flower.health import is_serving
from fedcondense.flower.processes import Child, Children, program
from fedcondense.flower.round_files import write_nodes
from fedcondense.flower.simulation import BUNDLE
from fedcondense.server.run_directory import RunDirectory

CONNECTION = "study"  # the name that Flower's command knows this SuperLink by
COMMANDS = ("flower-superexec", "flwr-serverapp")  # all that Flower finds on its PATH
LONGEST_START = 120.0  # seconds until the SuperLink answers
UPLOADS_PER_ATTEMPT = 2  # contributions of the largest size; a cut one is sent once more
LONGEST_SUBMISSION = 120.0  # seconds for the command that submits the bundle
LONGEST_RELEASE = 20.0  # seconds until the ports of a killed predecessor are free
PAUSE = 0.2  # seconds between two looks
INHERITED = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "TZ")
MEBIBYTE = 2**20
_log = logging.getLogger(__name__)


@dataclass
class SuperLink:
    """Flower's SuperLink for one run; its state and logs are in the run directory."""

    config: ServerConfig
    run: RunDirectory

    def __post_init__(self) -> None:
        self.home = self.run.path.absolute() / "flower"
        self.log = self.home / "flower.log"
        self.ready = self.home / "ready"
        self.control = Control(self.config.address.admin_port, self.config.tls.authority)

    @contextmanager
    def running(self) -> Iterator[Running]:
        """The SuperLink and what it starts, for as long as the context lasts; its door is shut.

        Raises:
            FederationError: a port is in use, or it does not answer in time.
        """
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.ready.unlink(missing_ok=True)
        await_ports(self.config.address)
        scratch = Path(tempfile.mkdtemp(prefix="fedcondense-"))
        try:
            with Children(self._environment(scratch), self.log, scratch) as children:
                yield self._start(children)
        finally:
            self.ready.unlink(missing_ok=True)

    def _start(self, children: Children) -> Running:
        self._write_connection()
        child = children.start(self._command())
        health = self.config.address.health_port
        _await(
            lambda: child.poll() is not None or (self.control.is_up() and is_serving(health)),
            LONGEST_START,
        )
        if child.poll() is not None or not self.control.is_up():
            raise self.failure("Flower's SuperLink did not start")
        return Running(self, children, child)

    def _command(self) -> list[str]:
        address, tls = self.config.address, self.config.tls
        largest = self.config.limits.request_megabytes * MEBIBYTE
        ours = ["--public", address.listen, str(address.port), "--ready", str(self.ready)]
        flowers = ["--host", HOST, "--port", str(address.admin_port)]
        flowers += ["--ssl-certfile", str(tls.certificate), "--ssl-keyfile", str(tls.key)]
        flowers += ["--ssl-ca-certfile", str(tls.authority), "--enable-supernode-auth"]
        flowers += ["--database", str(self.home / "superlink.db")]
        flowers += ["--health-server-address", f"{HOST}:{address.health_port}"]
        flowers += ["--disable-runtime-dependency-installation"]
        program = [sys.executable, "-P", "-m", "fedcondense.flower.superlink_process"]
        budget = UPLOADS_PER_ATTEMPT * self.config.limits.attempts * LARGEST_CONTRIBUTION
        ours += ["--largest", str(largest), "--budget", str(budget)]
        return [*program, *ours, "--", *flowers]

    def _environment(self, scratch: Path) -> dict[str, str]:
        """Little is inherited: no proxy, no setting of Flower's, no path of a key."""
        package = str(Path(fedcondense.__file__).parent.parent)
        paths = filter(None, [package, os.environ.get("PYTHONPATH", "")])
        return {
            **{name: os.environ[name] for name in INHERITED if name in os.environ},
            "PATH": str(self._commands()),
            "PYTHONPATH": os.pathsep.join(paths),
            "TMPDIR": str(scratch),
            "FLWR_HOME": str(self.home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_LOG_LEVEL": "WARNING",
        }

    def _commands(self) -> Path:
        """A folder with the commands that Flower starts by their bare names, and no others."""
        folder = self.home / "bin"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        for name in COMMANDS:
            (folder / name).symlink_to(program(name))
        return folder

    def _write_connection(self) -> None:
        """Flower's own configuration, by which `flwr run` finds the SuperLink."""
        connection = {
            "address": f"{HOST}:{self.config.address.admin_port}",
            "root-certificates": str(self.config.tls.authority),
        }
        values = {"superlink": {"default": CONNECTION, CONNECTION: connection}}
        (self.home / "config.toml").write_text(tomli_w.dumps(values), encoding="utf-8")

    def failure(self, what: str) -> FederationError:
        """An error whose hint names the log."""
        return FederationError(what, hint=f"see the end of {self.log}")


@dataclass
class Running:
    """A SuperLink that answers."""

    link: SuperLink
    children: Children
    child: Child
    refused: set[str] = field(default_factory=set)

    def is_alive(self) -> bool:
        """Whether SuperLink and superexec live: the one ends with the other."""
        return self.child.poll() is None

    def open(self) -> None:
        """Let SuperNodes connect.

        Raises:
            FederationError: the public port does not answer, or to another authority.
        """
        self.link.ready.touch(mode=0o600)
        address, authority = self.link.config.address, self.link.config.tls.authority
        if not _await(lambda: https_status(address.nearest, address.port, authority) == 200):
            raise self.link.failure("the public port does not answer")

    def enrol(self, sites: Mapping[str, EnrolmentRequest]) -> dict[str, int]:
        """Let the nodes of these sites connect and no others; site → node.

        Raises:
            FederationError: the SuperLink does not answer.
        """
        owner = {node_key_pem(request.node_key): site for site, request in sites.items()}
        nodes: dict[str, int] = {}
        for node in self.link.control.nodes():
            if node.key in owner:
                nodes[owner[node.key]] = node.number
            else:
                self.link.control.unregister(node.number)
        for key, site in owner.items():
            if site not in nodes and site not in self.refused:
                self._register(site, key, nodes)
        write_nodes(self.link.run, nodes)
        return nodes

    def _register(self, site: str, key: bytes, nodes: dict[str, int]) -> None:
        """Flower never takes a key again that it once refused; the site then needs a new one."""
        try:
            nodes[site] = self.link.control.register(key)
        except FederationError:
            if not self.is_alive():
                raise
            self.refused.add(site)
            _log.warning("%s: its node key was refused earlier in this run", site)

    def submit(self) -> int:
        """Begin a Flower run, and end all earlier ones; its number.

        Raises:
            FederationError: it could not be submitted.
        """
        before = self.link.control.runs()
        for run, state in before.items():
            if not state.startswith(FINISHED):
                self.link.control.stop(run)
        value = tomli_w.dumps({"run-directory": str(self.link.run.path.absolute())})
        config = value.strip().replace(" = ", "=", 1)  # Flower parts the pairs at spaces
        command = [program("flwr"), "run", str(BUNDLE), CONNECTION, "--run-config", config]
        submission = self.children.start(command)
        _await(lambda: submission.poll() is not None, LONGEST_SUBMISSION)
        begun = set(self.link.control.runs()) - set(before)
        if len(begun) != 1:
            raise self.link.failure("Flower did not take the run")
        return begun.pop()

    def has_ended(self, run: int) -> bool:
        """Whether a Flower run is over, however it ended."""
        return self.link.control.runs().get(run, FINISHED).startswith(FINISHED)


def await_ports(address: Address) -> None:
    """Ports are free again a moment after a predecessor was killed.

    Raises:
        FederationError: somebody else has one.
    """
    wanted = [
        (address.listen, address.port),
        (HOST, address.admin_port),
        (HOST, address.health_port),
    ]
    if not _await(lambda: all(_is_free(*one) for one in wanted), LONGEST_RELEASE):
        [port, *_] = [port for host, port in wanted if not _is_free(host, port)]
        raise FederationError(
            f"port {port} cannot be bound",
            hint="end what listens there, or name another port and address in SERVER.toml",
        )


def _await(done: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether `done` becomes true in time."""
    until = time.monotonic() + seconds
    while not done():
        if time.monotonic() > until:
            return False
        time.sleep(PAUSE)
    return True


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family):
            return True
    except OSError:
        return False
