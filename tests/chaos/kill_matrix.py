"""Every process of a deployment is killed in every phase of a round: does the study end the same?

`make chaos` plays one study a cell, two sites with a quorum of two, and prints a Markdown table for
docs/results.md. Victims get kill -9. Whatever an operator started and lost is started again by the
same command; nothing else is done. Condensation is the deterministic stand-in of `federation_kit`,
all else is real. With arguments, only these cells: `kill_matrix.py superlink/condensing ...`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from commands_kit import HERE, Machine, Running, edit, union_of
from deployment_kit import STAND_IN, Consortium, make_consortium, processes_of

LONGEST = 420.0  # seconds until a disturbed study must have ended
LONGEST_PARTING = 60.0  # seconds after the server's end until the sites have ended too
LONGEST_ORPHAN = 60.0  # seconds after the end
CONDENSING = 12.0  # seconds that the stand-in takes, so that there is somebody to kill
PAUSE = 10.0  # seconds until a command is given again: RestartSec of the service units
LOOK = 0.05  # seconds: a conclusion takes one or two
KITS = Path(__file__).parents[1] / "kits"
# with the stand-in no image is read, so a site's commands need its kits and nothing of it
SITES = Machine(environment={"PYTHONPATH": os.pathsep.join([str(STAND_IN), str(KITS)])})
# process → (where it lives, what its command line holds)
VICTIMS = {
    "client": ("site", "fedcondense.flower.installed_app"),
    "site-superexec": ("site", "flower-superexec"),
    "supernode": ("site", "flower-supernode"),
    "join": ("site", "fedcondense.cli.site"),
    "superlink": ("server", "fedcondense.flower.superlink_process"),
    "server-superexec": ("server", "flower-superexec"),
    "serverapp": ("server", "flwr-serverapp"),
    "run": ("server", "fedcondense.cli.server"),
}
PHASES = ("before hello", "waiting", "condensing", "aggregating")


class StillGoing(Exception):
    """Something did not happen in time."""


@dataclass(frozen=True)
class Cell:
    """Which process is killed, and when."""

    victim: str
    phase: str

    @property
    def exists(self) -> bool:
        """A site's client process lives only as long as it answers."""
        return self.victim != "client" or self.phase == "condensing"

    @property
    def name(self) -> str:
        return f"{self.victim}/{self.phase.replace(' ', '-')}"


@dataclass
class Study:
    """One study as it is played: its processes, and what was started again."""

    consortium: Consortium
    running: dict[str, Running] = field(default_factory=dict)
    restarts: int = 0
    missed: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.consortium.office.folder

    @property
    def round(self) -> Path:
        """The folder of the only round, wherever the run is."""
        return next(self.folder.glob("runs/*/round-001"), self.folder / "none")

    def begin(self, name: str) -> None:
        """Give the command of a party: `server`, or a site's name."""
        log = self.folder / f"{name}.log"
        if name == "server":
            settings = str(self.folder / "SERVER.toml")
            self.running[name] = HERE.begin("server", "run", settings, log=log)
        else:
            settings = str(self.consortium.sites[name].folder / "site.toml")
            self.running[name] = SITES.begin("site", "join", settings, log=log)

    def begin_again(self) -> None:
        """The same command, for whatever was killed with its own process."""
        for name, one in self.running.items():
            if one.process.poll() == -signal.SIGKILL:
                self.restarts += 1
                self.begin(name)

    @property
    def code(self) -> int | None:
        """The exit code of the server; None while it runs."""
        return self.running["server"].process.poll()

    def untold(self) -> list[str]:
        """Sites that have not ended by themselves: nobody told them what the study gave."""
        return sorted(name for name, one in self.running.items() if one.process.poll() != 0)

    def stop(self) -> None:
        for one in self._all():
            one.stop()

    def pids(self, victim: str) -> list[int]:
        """The processes to kill: the server's, or those of the first site."""
        where, command = VICTIMS[victim]
        site = str(self.consortium.sites["site-1"].folder)
        mine = processes_of(Path(site) if where == "site" else self.folder)
        theirs = {} if where == "site" else processes_of(self.folder / "sites")
        return [pid for pid, line in mine.items() if command in line and pid not in theirs]

    def is_open(self) -> bool:
        return bool(self.pids("serverapp"))

    def is_trying(self) -> bool:
        return "SuperNode started" in _text(self.folder / "site-1.log")

    def is_greeted(self) -> bool:
        return "query.hello, round 1: ready" in _text(self.folder / "site-1.log")

    def is_condensing(self) -> bool:
        return all(site.starts() for site in self.consortium.sites.values())

    def is_aggregating(self) -> bool:
        stored = len(list(self.round.glob("sealed/[!.]*.sealed")))
        return stored == 2 and (self.round / "intake.json").exists()

    def _all(self) -> list[Running]:
        return list(self.running.values())


@dataclass(frozen=True)
class Result:
    """What became of a cell."""

    cell: Cell
    ended: bool
    same: bool
    orphans: int
    restarts: int
    seconds: float
    note: str = ""

    @property
    def is_well(self) -> bool:
        return self.ended and self.same and not self.orphans

    def row(self) -> str:
        """A line of the table."""
        word = {True: "yes", False: "**no**"}
        told = [self.cell.victim, self.cell.phase, word[self.ended], word[self.same]]
        numbers = [str(self.orphans), str(self.restarts), f"{self.seconds:.0f}"]
        return f"| {' | '.join([*told, *numbers, self.note])} |"


def settle(folder: Path) -> Study:
    """Two enrolled sites whose `join` finds the server, and nothing running."""
    consortium = make_consortium(folder, sites=2, quorum=2)
    config = consortium.office.config
    address = f"localhost:{config.address.port}"
    for site in consortium.sites.values():
        site.folder.chmod(0o700)
        authority = str(config.tls.authority.absolute())
        edit(site.folder / "site.toml", server={"address": address, "authority": authority})
        site.behave(seconds=CONDENSING)
    return Study(consortium)


def begin_until(study: Study, cell: Cell) -> None:
    """Play up to the phase of a cell."""
    if cell.phase == "before hello":
        at_server = VICTIMS[cell.victim][0] == "server"
        study.begin("server" if at_server else "site-1")
        await_true(study.is_open if at_server else study.is_trying)
        return
    study.begin("server")
    study.begin("site-1")
    if cell.phase == "waiting":  # for the second site, without which nobody is asked
        await_true(study.is_greeted)
        return
    study.begin("site-2")
    await_true(study.is_condensing if cell.phase == "condensing" else study.is_aggregating)


def play(cell: Cell | None, folder: Path) -> tuple[str, Study]:
    """Play a study to its end, disturbed as the cell says; the digest of its global set."""
    study = settle(folder)
    try:
        if cell is not None:
            begin_until(study, cell)
            await_true(lambda: study.pids(cell.victim))
            for pid in study.pids(cell.victim):
                os.kill(pid, signal.SIGKILL)
            time.sleep(PAUSE)
            study.begin_again()
        for name in ("server", "site-1", "site-2"):
            if name not in study.running:
                study.begin(name)
        await_true(lambda: study.code is not None)
        with contextlib.suppress(StillGoing):
            await_true(lambda: not study.untold(), LONGEST_PARTING)
        study.missed = study.untold()
    finally:
        study.stop()
    return union_of(study.round.parent, 1), study


def disturb(cell: Cell, expected: str, folder: Path) -> Result:
    """One cell of the table; the folder stays for whoever looks into a failure."""
    began, digest, note, study = time.monotonic(), "", "", None
    try:
        digest, study = play(cell, folder)
    except (StillGoing, OSError, AssertionError) as error:
        note = f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - began
    ended, restarts = (study.code == 0, study.restarts) if study else (False, 0)
    if study and study.missed:
        note = f"not told: {', '.join(study.missed)}"
    return Result(cell, ended, digest == expected, orphans_of(folder), restarts, seconds, note)


def orphans_of(folder: Path) -> int:
    """Processes that are left a minute after the end."""
    until = time.monotonic() + LONGEST_ORPHAN
    while (left := processes_of(folder)) and time.monotonic() < until:
        time.sleep(LOOK)
    return len(left)


def await_true(true: Callable[[], object], seconds: float = LONGEST) -> None:
    """Look often.

    Raises:
        StillGoing: it did not become true.
    """
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            raise StillGoing(f"nothing within {seconds:.0f} s")
        time.sleep(LOOK)


def cells(wanted: Sequence[str]) -> Iterator[Cell]:
    """All cells, or those that are named."""
    every = [Cell(victim, phase) for victim in VICTIMS for phase in PHASES]
    unknown = set(wanted) - {cell.name for cell in every}
    if unknown:
        sys.exit(f"no such cell: {', '.join(sorted(unknown))}")
    return (cell for cell in every if cell.exists and (not wanted or cell.name in wanted))


def main(wanted: Sequence[str]) -> int:
    """Play all cells and print the table; 0 if all went well."""
    chosen = list(cells(wanted))
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    expected, study = play(None, folder / "undisturbed")
    if study.missed:
        sys.exit(f"the undisturbed study failed: {', '.join(study.missed)}; see {folder}")
    print(f"Undisturbed: `{expected[:16]}`; files in {folder}\n")
    print("| Killed | Phase | Ended | Same set | Orphans | Started again | Seconds | |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    results = []
    for cell in chosen:
        results.append(disturb(cell, expected, folder / cell.name.replace("/", "-")))
        print(results[-1].row(), flush=True)
    return 0 if all(result.is_well for result in results) else 1


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
