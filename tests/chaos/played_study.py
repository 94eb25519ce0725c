"""One deployed study of two sites, all of it as processes, that can be watched and disturbed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from commands_kit import HERE, Machine, Running, union_of
from deployment_kit import Consortium, Sightings, processes_of
from paced_kit import CONDENSING, PATHS, Pace, machine_of

from fedcondense.errors import FedcondenseError
from fedcondense.progress import Step
from fedcondense.site.journal import read_journal

LONGEST = 420.0  # seconds until what is waited for must have happened
LONGEST_ORPHAN = 60.0  # seconds after the end
LOOK = 0.05  # seconds: some phases are short
SIGHTING = 1.0  # seconds between two looks at all processes
FIRST, SECOND = "site-1", "site-2"
SERVER = "server"


class StillGoing(Exception):
    """Something did not happen in time."""


class PhaseMissed(Exception):
    """Nobody was there, or not in the phase, when something was done to him."""


def demand(hit: bool, note: str) -> None:
    """Whether the phase was hit.

    Raises:
        PhaseMissed: it was not.
    """
    if not hit:
        raise PhaseMissed(note)


@dataclass
class Study:
    """One study as it is played: its processes, and what was started again.

    `places` says on which machine a party's command runs, where that is not this one; `paths` is
    where the processes of sites find what paces them, or stands in for them.
    """

    consortium: Consortium
    places: dict[str, Machine] = field(default_factory=dict)
    running: dict[str, Running] = field(default_factory=dict)
    restarts: int = 0
    paths: str = PATHS

    def __post_init__(self) -> None:
        self.sightings, self._looked = Sightings(self.folder), 0.0

    @property
    def folder(self) -> Path:
        return self.consortium.office.folder

    def site(self, name: str) -> Path:
        """The folder of a site."""
        return self.consortium.sites[name].folder

    @property
    def paces(self) -> list[Pace]:
        """Those of both sites."""
        return [Pace(site.folder) for site in self.consortium.sites.values()]

    def round(self, number: int = 1) -> Path:
        """The server's folder of a round, wherever the run is."""
        return next(self.folder.glob(f"runs/*/round-{number:03d}"), self.folder / "none")

    def begin(self, name: str) -> None:
        """Give the command of a party: `server`, or a site's name."""
        log, place = self.folder / f"{name}.log", self.places.get(name, HERE)
        if name == SERVER:
            machine = replace(place, environment={"OWNER": str(self.folder)})
            arguments = ("server", "run", str(self.folder / "SERVER.toml"))
        else:
            machine = machine_of(self.site(name), place, self.paths)
            arguments = ("site", "join", str(self.site(name) / "site.toml"))
        self.running[name] = machine.begin(*arguments, log=log)

    def killed(self) -> list[str]:
        """Parties whose own command was killed."""
        ended = {name: one.process.poll() for name, one in self.running.items()}
        return [name for name, code in ended.items() if code == -signal.SIGKILL]

    def await_death(self, victims: Collection[int]) -> None:
        """Wait until the victims are gone, and those that are commands have an exit code."""
        self.wait(lambda: not any(_is_left(process) for process in victims), "death")
        for one in self.running.values():
            if one.process.pid in victims:
                one.ended()

    def begin_again(self) -> None:
        """The same command, for whoever lost it."""
        for name in self.killed():
            self.restarts += 1
            self.begin(name)

    @property
    def code(self) -> int | None:
        """The exit code of the server; None while it runs, and before."""
        return self.running[SERVER].process.poll() if SERVER in self.running else None

    def untold(self) -> list[str]:
        """Sites that have not ended by themselves: nobody told them what the study gave."""
        sites = {name: one for name, one in self.running.items() if name != SERVER}
        return sorted(name for name, one in sites.items() if one.process.poll() != 0)

    def digest(self, number: int) -> str:
        """That of a round's global set; empty if there is none."""
        try:
            return union_of(self.round(number).parent, number)
        except (FedcondenseError, OSError):
            return ""

    def stop(self) -> None:
        """End all commands."""
        self.sightings.look()
        for one in self.running.values():
            one.stop()

    def orphans(self) -> list[str]:
        """Command lines of processes that outlived all commands by a minute; they are ended."""
        until = time.monotonic() + LONGEST_ORPHAN
        while (left := self.sightings.look()) and time.monotonic() < until:
            time.sleep(1.0)
        for process in left:
            os.kill(process, signal.SIGKILL)
        return list(left.values())

    def pids(self, where: str, command: str) -> list[int]:
        """Processes of the server, or of a site, that run a command."""
        if where != SERVER:
            mine = processes_of(self.site(where))
            return [pid for pid, line in mine.items() if command in line]
        mine, theirs = processes_of(self.folder), processes_of(self.folder / "sites")
        return [pid for pid, line in mine.items() if command in line and pid not in theirs]

    def wait(self, true: Callable[[], object], what: str, seconds: float = LONGEST) -> None:
        """Look often.

        Raises:
            StillGoing: it did not become true.
        """
        until = time.monotonic() + seconds
        while not true():
            if time.monotonic() > until:
                raise StillGoing(f"no {what} within {seconds:.0f} s")
            if time.monotonic() - self._looked > SIGHTING:
                self.sightings.look()
                self._looked = time.monotonic()
            time.sleep(LOOK)

    def said(self, name: str) -> str:
        """What the command of a party printed."""
        log = self.folder / f"{name}.log"
        return log.read_text() if log.exists() else ""

    def has_greeted(self) -> bool:
        """Whether the first site has answered to a greeting."""
        return "query.hello, round 1: ready" in self.said(FIRST)

    def has_sealed(self) -> bool:
        """Whether the first site has its contribution ready."""
        return any(self.site(FIRST).glob("runs/*/round-001/sealed/[!.]*.sealed"))

    def has_begun(self) -> bool:
        """Whether a site has begun to condense."""
        journals = [self.site(name).glob("runs/*/round-001/log.jsonl") for name in (FIRST, SECOND)]
        return any(list(found) for found in journals)

    def has_checkpoint(self, number: int = 1) -> bool:
        """Whether the first site keeps the state of an unfinished condensation."""
        return any(self.site(FIRST).glob(f"runs/*/round-{number:03d}/checkpoint.safetensors"))

    def is_writing_checkpoint(self) -> bool:
        """Whether a state is written and not yet in its place."""
        return any(self.site(FIRST).glob("runs/*/round-001/.checkpoint.safetensors.*.tmp"))

    def stored(self) -> set[str]:
        """Sites whose contribution of the first round the server has."""
        return {path.stem for path in self.round().glob("sealed/[!.]*.sealed")}

    def has(self, name: str, number: int = 1) -> bool:
        """Whether a file of a round is at the server."""
        return (self.round(number) / name).exists()

    def all_wait(self) -> bool:
        """Whether both condensations wait where they were told to."""
        return all(pace.is_waiting() for pace in self.paces)

    def condensed(self, number: int) -> list[Step]:
        """All steps of the first site's condensation in a round, repeated ones too."""
        journals = self.site(FIRST).glob(f"runs/*/round-{number:03d}/log.jsonl")
        told = [step for journal in journals for step in read_journal(journal)]
        return [step for step in told if step.stage == CONDENSING]


def _is_left(process: int) -> bool:
    """Whether something of it lives; one that dies has no command line for a while."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
