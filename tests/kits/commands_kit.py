"""A consortium as its operators run it: their commands as processes, and the files that they edit.

Nothing stands in for anything here: keys, certificate, enrolment, audits, gate and TLS are those of
a deployment, on ports of this machine that are free.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

import fedcondense
from fedcondense.flower.processes import free_port

LONGEST = 480.0  # seconds for a study on a busy machine
LONGEST_STOP = 60.0  # seconds for a command to end what it started
HOSPITAL = "Klinikum-Musterstadt"  # stands in every path of the sites
EVALUATION = {"kind": "phantoms", "images_per_class": 8, "seed": 9}
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Machine:
    """Where commands run: `enter` is put before each of them, `address` is what others connect to.

    `environment` is added to that of every command.
    """

    address: str = "127.0.0.1"
    enter: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def begin(self, program: str, *arguments: str, log: Path) -> Running:
        """Start a command whose output goes to `log`."""
        with log.open("ab") as out:
            process = subprocess.Popen(
                self._command(program, arguments),
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        return Running(process, log)

    def give(self, program: str, *arguments: str) -> str:
        """Run a command to its end; what it printed."""
        ran = subprocess.run(
            self._command(program, arguments),
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def _command(self, program: str, arguments: Sequence[str]) -> list[str]:
        code = f"from fedcondense.cli.{program} import main; main()"
        return [*self.enter, sys.executable, "-c", code, *arguments]

    def _environment(self) -> dict[str, str]:
        root = str(Path(fedcondense.__file__).parent.parent)
        paths = [*filter(None, [self.environment.get("PYTHONPATH")]), root]
        plain = {"OMP_NUM_THREADS": "1", "COLUMNS": "200", **self.environment}
        return {**os.environ, **plain, "PYTHONPATH": os.pathsep.join(paths)}


HERE = Machine()


@dataclass(frozen=True)
class Running:
    """A command that runs; all that it prints is in `log`."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        """What it, and those before it with the same log, printed so far."""
        return self.log.read_text()

    def ended(self, seconds: float = LONGEST) -> int:
        """Its exit code, once it has ended by itself."""
        return self.process.wait(seconds)

    def stop(self) -> None:
        """End it as an operator would, or harder."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(LONGEST_STOP)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@dataclass
class Server:
    """The coordinator's folder."""

    folder: Path
    machine: Machine = HERE
    printed: str = ""

    @property
    def settings(self) -> Path:
        return self.folder / "SERVER.toml"

    @property
    def port(self) -> int:
        return int(read_toml(self.settings)["address"]["port"])

    @property
    def run(self) -> Path:
        """The directory of its only run."""
        [found] = (self.folder / "runs").glob("*/run.json")
        return found.parent

    def found(self, study: Values, **changes: Any) -> None:
        """`init`, then the study that all agreed on, and free ports."""
        self.folder.mkdir(parents=True)
        self.give("init", self.machine.address)
        ports = {name: free_port() for name in ("port", "admin_port", "health_port")}
        address = {"names": [self.machine.address], "listen": self.machine.address, **ports}
        edit(self.settings, address=address, threads=1, device="cpu", **changes)
        (self.folder / "STUDY.toml").write_text(tomli_w.dumps(study))
        self.printed = self.give("init")

    def value(self, name: str) -> str:
        """What `init` printed of a digest or fingerprint."""
        found = re.search(rf"^{name}  +(.+)$", self.printed, re.MULTILINE)
        assert found is not None, self.printed
        return found[1].strip()

    def give(self, verb: str, *arguments: str) -> str:
        """One of the server's commands, to its end."""
        return self.machine.give("server", verb, str(self.settings), *arguments)

    @property
    def log(self) -> Path:
        return self.folder / "run.log"

    def begin(self) -> Running:
        """`run`."""
        return self.machine.begin("server", "run", str(self.settings), log=self.log)

    def union(self, number: int) -> str:
        """The digest of a round's global synthetic set."""
        return union_of(self.run, number)


@dataclass
class Site:
    """One hospital's folder; the site is called like it."""

    folder: Path
    machine: Machine = HERE

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def settings(self) -> Path:
        return self.folder / "SITE.toml"

    def settle(self, server: Server, **values: Any) -> None:
        """`init`, enrolment, and what the operator says filled in."""
        self.folder.mkdir(parents=True, mode=0o700)
        self.give("init")
        letter = server.folder / f"{self.name}-request.json"
        shutil.copy(self.folder / "enrolment-request.json", letter)
        server.give("enroll", str(letter))
        shutil.copy(server.folder / "STUDY.toml", self.folder / "study.toml")
        shutil.copy(server.folder / "keys" / "authority.pem", self.folder)
        address = f"{server.machine.address}:{server.port}"
        edit(
            self.settings,
            study_digest=server.value("study digest"),
            run_signing_fingerprint=server.value("run-signing fingerprint"),
            server={"address": address, "authority": "authority.pem"},
            threads=1,
            device="cpu",
            **values,
        )

    def give(self, verb: str, *arguments: str) -> str:
        """One of the site's commands, to its end."""
        return self.machine.give("site", verb, str(self.settings), *arguments)

    @property
    def log(self) -> Path:
        return self.folder / "join.log"

    def begin(self) -> Running:
        """`join`."""
        return self.machine.begin("site", "join", str(self.settings), log=self.log)

    def kept(self, name: str, number: int) -> Path:
        """A file that it keeps of a round."""
        [found] = self.folder.glob(f"state/runs/*/round-{number:03d}/{name}")
        return found


@contextlib.contextmanager
def all_begun(*parties: Server | Site) -> Iterator[list[Running]]:
    """The long-running command of each, for as long as the context lasts."""
    with contextlib.ExitStack() as stack:
        running: list[Running] = []
        for party in parties:
            running.append(party.begin())
            stack.callback(running[-1].stop)
        yield running


def union_of(run: Path, number: int) -> str:
    """The digest of a round's global synthetic set in a server's run directory."""
    from fedcondense.server.aggregate import read_global_set

    return read_global_set(run / f"round-{number:03d}" / "global").sha256


def read_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file."""
    return tomllib.loads(path.read_text())


def edit(path: Path, **values: Any) -> None:
    """Write other values into a settings file, as its operator would."""
    path.write_text(tomli_w.dumps(read_toml(path) | values))


def mentions(folder: Path, words: Sequence[str]) -> list[tuple[str, str]]:
    """(file, word): where one of the words stands in a file's name or bytes below `folder`."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        data = path.read_bytes() if path.is_file() else b""
        found += [(name, word) for word in words if word in name or word.encode() in data]
    return found
