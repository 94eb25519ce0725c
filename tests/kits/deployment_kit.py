"""A deployed server and its sites as processes on this machine, all on ports that are free.

A site here is Flower's own SuperNode with the installed ClientApp; its condensation is the stand-in
of `federation_kit`. The site's supervisor has tests of its own.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w
from commands_kit import edit
from enrolment_kit import NOW, Applicant
from server_kit import Office, make_office
from wire_kit import small_study

import fedcondense
from fedcondense.exchange.keys import SigningKey
from fedcondense.files.storage import write_json
from fedcondense.flower.processes import Children, free_port, program
from fedcondense.server.current_run import CurrentRun, find_run, study_of

STAND_IN = Path(__file__).parents[1] / "flower" / "standin"
SHORT = {"networks": 1, "steps": 4, "batch": 8, "resamples": 100}
_START_FIELD = 19  # of /proc/PID/stat, counted from the state that follows the name
LONGEST = 300.0  # seconds that a test waits for processes on a busy machine


def serve(office: Office, verb: str = "run", *, hook: Path | None = None) -> subprocess.Popen[str]:
    """The server's command as a process of its own; `hook` holds a sitecustomize.py."""
    code = "from fedcondense.cli.server import main; main()"
    root = Path(fedcondense.__file__).parent.parent
    paths = [*([str(hook)] if hook else []), str(root)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, verb, str(office.folder / "SERVER.toml")],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes_of(folder: Path, known: Iterable[int] = ()) -> dict[int, str]:
    """Living processes whose command line or environment names a folder, and what they started.

    Flower's superexec forbids reading its environment, so it is found by its parent; of an orphan
    the parent is gone: `Sightings` remembers it. `known` are further ones that belong here.
    """
    commands, parents, found = {}, {}, set(known)
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (place / "stat").read_text().rpartition(")")[2].split()[:2]
            if state == "Z":
                continue
            pid = int(place.name)
            commands[pid], parents[pid] = (place / "cmdline").read_bytes(), int(parent)
            if str(folder).encode() in commands[pid] + (place / "environ").read_bytes():
                found.add(pid)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    found &= commands.keys()
    return {pid: commands[pid].replace(b"\0", b" ").decode() for pid in found - {os.getpid()}}


@dataclass
class Sightings:
    """All processes that were ever seen of a folder, so that orphans are found again.

    A process is its number and its start: numbers are given again.
    """

    folder: Path
    seen: set[tuple[int, str]] = field(default_factory=set)

    def look(self) -> dict[int, str]:
        """Those that live now, with what they started; process → its command line."""
        known = {pid for pid, began in self.seen if _start_of(pid) == began}
        found = processes_of(self.folder, known)
        self.seen |= {(pid, _start_of(pid)) for pid in found}
        return found


def _start_of(process: int) -> str:
    """When it was started, in ticks of the kernel; empty if it is gone."""
    with contextlib.suppress(OSError):
        stat = (Path("/proc") / str(process) / "stat").read_text(errors="replace")
        return stat.rpartition(")")[2].split()[_START_FIELD]
    return ""


def wait_for(done: Callable[[], Any], seconds: float = LONGEST) -> Any:
    """What `done` returns once it is true."""
    until = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.1)
    return found


@dataclass
class Site:
    """A site's folder and keys, and what its stand-in does."""

    office: Office
    keys: Applicant
    folder: Path

    def behave(self, *, seconds: float = 0.0, raises: str = "", length: int = 0) -> None:
        """Say what its stand-in does; with a `length`, it sends so many zeros."""
        behaviour = {"seconds": str(seconds), "raises": raises, "length": length}
        write_json(self.folder / "behaviour.json", behaviour)

    def may_join(self) -> None:
        """Fill in what its own `join` needs beside the rest."""
        self.folder.chmod(0o700)
        address, authority = self.office.config.address, self.office.config.tls.authority
        server = {
            "address": f"{address.names[-1]}:{address.port}",
            "authority": str(authority.absolute()),
        }
        edit(self.folder / "site.toml", server=server)

    def starts(self) -> list[int]:
        """Process ids of its condensations so far."""
        path = self.folder / "starts.log"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def command(self) -> list[str]:
        options = {
            "--superlink": f"127.0.0.1:{self.office.config.address.port}",
            "--root-certificates": str(self.office.config.tls.authority),
            "--auth-supernode-private-key": str(self.folder / "keys" / "node.key"),
            "--node-config": f"site-config='{self.folder / 'site.toml'}'",
            "--port": str(free_port()),
        }
        return [program("flower-supernode"), *(part for pair in options.items() for part in pair)]

    @contextmanager
    def online(self) -> Iterator[subprocess.Popen[bytes]]:
        """Its SuperNode, for as long as the context lasts."""
        scratch = self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        with Children(self._environment(), self.folder / "supernode.log", scratch) as children:
            yield children.start(self.command())

    def _environment(self) -> dict[str, str]:
        root = Path(fedcondense.__file__).parent.parent
        paths = [str(STAND_IN), str(Path(__file__).parent), str(root)]
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("FLWR_")},
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"]),
            "PYTHONPATH": os.pathsep.join(paths),
            "FLWR_HOME": str(self.folder / "flower"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
        }


@dataclass
class Consortium:
    """A coordinator's office and its enrolled sites."""

    office: Office
    sites: dict[str, Site] = field(default_factory=dict)

    def settle(self, name: str) -> Site:
        """Give a site its folder, keys and files, and enroll it."""
        folder, keys = self.office.folder / "sites" / name, Applicant(name)
        keys.signing.save(folder / "keys" / "signing.key")
        keys.node.save(folder / "keys" / "node.key")
        study = study_of(self.office.config)
        pinned = SigningKey.load(self.office.config.run_signing_key).fingerprint
        values = {
            "name": name,
            "seed": len(self.sites) + 1,
            "images": {"kind": "phantoms", "images_per_class": 8},
            "state": str(folder),
            "study": str(self.office.config.study),
            "study_digest": study.digest,
            "run_signing_fingerprint": pinned,
        }
        (folder / "site.toml").write_text(tomli_w.dumps(values))
        self.office.register.enroll(keys.write(self.office.folder / "mail"), now=NOW)
        site = self.sites[name] = Site(self.office, keys, folder)
        site.behave()
        return site

    def current(self) -> CurrentRun | None:
        """The run, once it has begun."""
        return find_run(self.office.config, study_of(self.office.config))

    def log(self) -> str:
        """What Flower printed at the server, and each site: for a test that failed."""
        paths = [*self.office.folder.glob("runs/*/flower/flower.log")]
        paths += [site.folder / "supernode.log" for site in self.sites.values()]
        texts = (f"--- {p}\n{p.read_text()[-3000:]}" for p in paths if p.exists())
        return "\n".join(texts)


def make_consortium(
    folder: Path,
    sites: int,
    *,
    quorum: int = 1,
    rounds: int = 1,
    study: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Consortium:
    """An office on free ports with a certificate, and so many enrolled sites.

    `study` are its further values; `changes` are those of SERVER.toml.
    """
    values = {
        "classes": ["Normal", "Viral_Pneumonia"],  # of which there are phantoms to score on
        "quorum": quorum,
        "rounds": rounds,
        "network": {"width": 4, "depth": 2},
        "evaluation": SHORT,
        **(study or {}),
    }
    address = {"names": ["localhost"], "listen": "127.0.0.1", **changes.pop("address", {})}
    for name in ("port", "admin_port", "health_port"):
        address[name] = free_port()
    office = make_office(folder, study=small_study(**values), address=address, **changes)
    office.certify()
    consortium = Consortium(office)
    for number in range(1, sites + 1):
        consortium.settle(f"site-{number}")
    return consortium
