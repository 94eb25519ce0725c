"""Every process of a deployment is killed in every phase: does the study end the same?

`make chaos` plays one study a cell: two sites with a quorum of two, whose tiny condensations are
real and keep their state at every step. Victims get kill -9. Whatever an operator started and lost
is started again by the same command; nothing else is done. Well is a cell whose phase was hit,
whose study ended by itself with the set of an undisturbed one, whose sites were all told, and of
which no process is left a minute later.

Rows are kept in runs/chaos/results.jsonl as they come: the next call plays only what is missing
there, and what is named. Remove the file after a change of the code. With arguments, only these
cells: `kill_matrix.py superlink/condensing client/second-round ...`; `link` (cut for 90 s in the
midst of an upload) and `busy` (a client busy for ten minutes) must be named.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cut_link import NoNamespaces, cut_link
from paced_kit import MIDST, STEPS, Point, paced_consortium
from phases import PHASES
from played_study import FIRST, SECOND, SERVER, PhaseMissed, StillGoing, Study, demand
from rows import BEGAN_AGAIN, IN_PARTS, WHOLE, Kept, Row, table

from fedcondense.errors import FedcondenseError

LONGEST_PARTING = 60.0  # seconds after the server's end until the sites have ended too
LONGEST_FAMILY = 30.0  # seconds until what a dead process started is dead too
LONGEST_BIRTH = 20.0  # seconds until the victim lives too
PAUSE = 10.0  # seconds until a command is given again: RestartSec of the service units
BUSY = 600.0  # seconds
RESULTS = Path("runs/chaos/results.jsonl")
NETWORKS = {"networks": 2, "steps": 4, "batch": 8, "resamples": 100}  # one for each process
CLIENT = "fedcondense.flower.installed_app"
# process → (where it lives, what its command line holds)
VICTIMS = {
    "client": (FIRST, CLIENT),
    "site-superexec": (FIRST, "flower-superexec"),
    "supernode": (FIRST, "flower-supernode"),
    "join": (FIRST, "fedcondense.cli.site"),
    "superlink": (SERVER, "fedcondense.flower.superlink_process"),
    "server-superexec": (SERVER, "flower-superexec"),
    "serverapp": (SERVER, "flwr-serverapp"),
    "run": (SERVER, "fedcondense.cli.server"),
}
# a site's client process lives only as long as it answers
CLIENT_LIVES = ("condensing", "checkpointing", "uploading", "second round")
UNDISTURBED = "nobody"


@dataclass(frozen=True)
class Cell:
    """Which process is killed, and when."""

    victim: str
    phase: str

    @property
    def exists(self) -> bool:
        return self.victim != "client" or self.phase in CLIENT_LIVES

    @property
    def name(self) -> str:
        return f"{self.victim}/{self.phase.replace(' ', '-')}"

    @property
    def rounds(self) -> int:
        return PHASES[self.phase].rounds

    def disturb(self, study: Study) -> str:
        """Lead the study to the phase and kill; nothing to tell.

        Raises:
            PhaseMissed: the victim was not there, or not in the phase.
        """
        where, _ = VICTIMS[self.victim]
        PHASES[self.phase].lead(study, where)
        self._kill(study)
        if where != SERVER:
            # whoever condenses for a dead parent is to die as well, not to go on just before
            with contextlib.suppress(StillGoing):
                study.wait(lambda: not study.pids(where, CLIENT), "end of it", LONGEST_FAMILY)
        for pace in study.paces:
            pace.go_on()
        if study.killed():
            time.sleep(PAUSE)
            study.begin_again()
        return ""

    def _kill(self, study: Study) -> None:
        where, command = VICTIMS[self.victim]
        is_in = PHASES[self.phase].is_in
        with contextlib.suppress(StillGoing):
            study.wait(lambda: study.pids(where, command), self.victim, LONGEST_BIRTH)
        victims, was_in = study.pids(where, command), is_in(study)
        for process in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        study.await_death(victims)
        demand(bool(victims) and was_in and is_in(study), f"{len(victims)} victims")


def let_be(study: Study) -> str:
    """Disturb nothing."""
    return ""


def keep_busy(study: Study) -> str:
    """The first site's process spins for ten minutes; nothing to tell."""
    [pace, _] = study.paces
    pace.wait_at(Point.STEP, spin=True)
    for name in (SERVER, FIRST, SECOND):
        study.begin(name)
    study.wait(pace.is_waiting, "condensing")
    with contextlib.suppress(StillGoing):
        study.wait(lambda: study.has("intake.json"), "loss", BUSY)
    pace.go_on()
    study.wait(lambda: study.code is not None, "end")
    return ""


def play(study: Study, disturb: Callable[[Study], str], rounds: int) -> Row:
    """Play a study to its end; what became of it."""
    began, hit, note = time.monotonic(), True, ""
    try:
        note = disturb(study)
        for name in (SERVER, FIRST, SECOND):
            if name not in study.running:
                study.begin(name)
        study.wait(lambda: study.code is not None, "end of the server")
        study.wait(lambda: not study.untold(), "end of the sites", LONGEST_PARTING)
    except PhaseMissed as error:
        hit, note = False, str(error)
    except (StillGoing, OSError, AssertionError, FedcondenseError) as error:
        note = f"{type(error).__name__}: {error}"
    finally:
        ended, told = study.code == 0, not study.untold()
        study.stop()
    seconds, digest = time.monotonic() - began, study.digest(rounds)
    note = note or ("" if ended else study.said(SERVER).rstrip().rpartition("\n")[2])
    return Row(
        victim="",
        phase="",
        hit=hit,
        ended=ended,
        same=bool(digest),
        told=told,
        orphans=tuple(line[:80] for line in study.orphans()),
        restarts=study.restarts,
        seconds=seconds,
        digest=digest,
        steps=steps_of(study, rounds),
        note=note,
    )


def steps_of(study: Study, number: int) -> str:
    """Whether the first site condensed a round at a stretch, in two parts, or from the start."""
    done = [step.done for step in study.condensed(number)]
    whole, in_parts = list(range(1, STEPS + 1)), [*range(1, MIDST + 1), *range(MIDST, STEPS + 1)]
    if done == whole:
        return WHOLE
    return IN_PARTS if done == in_parts else BEGAN_AGAIN


@dataclass
class Matrix:
    """Cells that are played one after another, all files in one folder."""

    kept: Kept
    folder: Path

    def settle(self, name: str, rounds: int) -> Study:
        """Two enrolled sites whose `join` finds the server, and nothing running."""
        folder = self.folder / name.replace("/", "-")
        values = {"rounds": rounds, "evaluation": NETWORKS}
        return Study(paced_consortium(folder, study=values, threads=2))

    def undisturbed(self, rounds: int) -> str:
        """The digest that a study of so many rounds gives.

        Raises:
            SystemExit: it does not end well even so.
        """
        phase = f"{rounds} rounds"
        known = self.kept.rows().get(f"{UNDISTURBED}/{phase}")
        if known is not None and known.is_well:
            return known.digest
        study = self.settle(f"undisturbed-{rounds}", rounds)
        row = replace(play(study, let_be, rounds), victim=UNDISTURBED, phase=phase)
        self.add(row)
        if not row.is_well:
            sys.exit(f"the undisturbed study failed: {row.problems}; see {self.folder}")
        return row.digest

    def play(self, cell: Cell) -> None:
        """One cell of the table; its folder stays for whoever looks into a failure."""
        expected = self.undisturbed(cell.rounds)
        row = play(self.settle(cell.name, cell.rounds), cell.disturb, cell.rounds)
        same = row.digest == expected
        self.add(replace(row, victim=cell.victim, phase=cell.phase, same=same))

    def play_busy(self) -> None:
        """A site that is busy for long keeps its round."""
        expected = self.undisturbed(1)
        row = play(self.settle("busy", 1), keep_busy, 1)
        same = row.digest == expected and row.steps == WHOLE
        self.add(replace(row, victim=UNDISTURBED, phase=f"busy for {BUSY:.0f} s", same=same))

    def play_link(self) -> None:
        """A link is cut in the midst of an upload."""
        with cut_link(self.folder / "link") as cut:
            row = play(cut.study, cut.disturb, 1)
        same = row.digest == cut.expected
        self.add(
            replace(row, victim="link", phase="cut for 90 s in an upload", same=same, steps=WHOLE)
        )

    def add(self, row: Row) -> None:
        self.kept.add(row)
        print(f"{row.name}: {row.brief} {row.seconds:.0f} s {row.note}".rstrip(), flush=True)


def chosen(wanted: Sequence[str], extras: Mapping[str, object], kept: Kept) -> list[Cell]:
    """Cells that are named, or all that are not yet kept."""
    every = [Cell(victim, phase) for victim in VICTIMS for phase in PHASES]
    every = [cell for cell in every if cell.exists]
    unknown = set(wanted) - {cell.name for cell in every} - extras.keys()
    if unknown:
        sys.exit(f"no such cell: {', '.join(sorted(unknown))}")
    if wanted:
        return [cell for cell in every if cell.name in wanted]
    known = kept.rows()
    return [cell for cell in every if f"{cell.victim}/{cell.phase}" not in known]


def main(wanted: Sequence[str]) -> int:
    """Play what is wanted and print the table of all that is kept; 0 if all of that went well."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # ends what was begun, as Ctrl-C
    matrix = Matrix(Kept(RESULTS), Path(tempfile.mkdtemp(prefix="chaos-")))
    extras = {"busy": matrix.play_busy, "link": matrix.play_link}
    cells = chosen(wanted, extras, matrix.kept)
    print(f"{len(cells)} cells; files in {matrix.folder}, rows in {RESULTS}", flush=True)
    for cell in cells:
        matrix.play(cell)
    for name in [name for name in extras if name in wanted]:
        try:
            extras[name]()
        except NoNamespaces as error:
            print(f"{name}: skipped, {error}", flush=True)
    rows = matrix.kept.rows().values()
    print(f"\n{table(rows, list(VICTIMS), list(PHASES))}")
    return 0 if all(row.is_well for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
