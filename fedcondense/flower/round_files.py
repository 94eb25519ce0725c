"""What the ServerApp and its parent tell each other: small JSON files in the run directory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from fedcondense.errors import RunDirectoryError
from fedcondense.files.storage import read_json, write_json
from fedcondense.server.intake import LARGEST_RUN, MOST_ATTEMPTS, IntakeLimits
from fedcondense.server.run_directory import RunDirectory

SHORTEST_TELLING = 90.0  # seconds for sites to answer, however little they are told
SLOWEST_LINK = 1_000_000  # bytes a second out of the server, for all sites together
PARTING = 60.0  # seconds

Codes = dict[str, str]  # site → FC code


@dataclass(frozen=True)
class Plan:
    """What the parent asks of one Flower run (request.json).

    In a simulation sites are asked in the order of `ask`, at most `at_once` at a time; `refused`
    and `failed` hold the codes of sites that said so in an earlier Flower run of the same round.

    A deployed server has `joining`, in seconds since 1970 UTC: until then it waits for a quorum to
    be online. All enrolled sites are asked, each as it comes, whatever stands in `ask`; `attempts`
    and `stored_bytes` are its limits.
    """

    round: int
    ask: tuple[str, ...] = ()
    at_once: int = 1
    refused: Codes = field(default_factory=dict)
    failed: Codes = field(default_factory=dict)
    joining: float | None = None
    attempts: int = MOST_ATTEMPTS
    stored_bytes: int = LARGEST_RUN

    @property
    def limits(self) -> IntakeLimits:
        """What intake is held to."""
        return IntakeLimits(self.attempts, self.stored_bytes)


def write_plan(path: Path, plan: Plan) -> None:
    """Write what a Flower run is asked, before it is submitted."""
    write_json(path, asdict(plan))


def read_plan(path: Path) -> Plan:
    """What this Flower run is asked."""
    values: Mapping[str, Any] = read_json(path)
    return Plan(**{**values, "ask": tuple(values["ask"])})


@dataclass(frozen=True)
class Intake:
    """What one Flower run brought (intake.json).

    `stored` holds the digest of each site's sealed contribution, the others FC codes: `refused` by
    the site's own gate, `failed` at the site or at intake, `missing` without any answer. Each
    enrolled site stands in one of the four. `asked` are those that were sent a request in this
    Flower run.
    """

    round: int
    stored: dict[str, str]
    refused: Codes
    failed: Codes
    missing: Codes
    asked: tuple[str, ...] = ()

    @property
    def lost(self) -> tuple[str, ...]:
        """Sites that were asked and never answered: their process died, or time was up."""
        return tuple(site for site in self.asked if site in self.missing)

    @property
    def unasked(self) -> tuple[str, ...]:
        """Sites that could not be asked, because Flower broke before it was their turn."""
        return tuple(site for site in self.missing if site not in self.asked)


@dataclass(frozen=True)
class Told:
    """Who was told what the study gave (told.json): sites, and the codes of those that were not."""

    sites: tuple[str, ...]
    codes: Codes


def write_told(path: Path, told: Told) -> None:
    """Write who was told: the last thing of a run inside Flower."""
    write_json(path, asdict(told))


def read_told(path: Path) -> Told:
    """Who was told."""
    values: Mapping[str, Any] = read_json(path)
    return Told(tuple(values["sites"]), values["codes"])


def seconds_to_tell(sites: int, size: int) -> float:
    """For how long so many sites are told a result of so many bytes, all over one link."""
    return SHORTEST_TELLING + sites * size / SLOWEST_LINK


def longest_telling(run: RunDirectory, round: int, sites: int) -> float:
    """Seconds until a parent gives up waiting for told.json: the ServerApp's, and to write it."""
    sent = run.global_set(round).glob("set.safetensors")
    return seconds_to_tell(sites, sum(path.stat().st_size for path in sent)) + PARTING


def newest_request(run: RunDirectory) -> int:
    """The round that was asked for last, from 1.

    Raises:
        RunDirectoryError: none was ever asked for.
    """
    numbers = [
        int(path.parent.name.removeprefix("round-"))
        for path in run.path.glob("round-[0-9]*/request.json")
    ]
    if not numbers:
        raise RunDirectoryError(
            f"{run.path.name}: no round was asked for", hint="give `fedcondense-server run` again"
        )
    return max(numbers)


def write_nodes(run: RunDirectory, nodes: Mapping[str, int]) -> None:
    """Say which node of Flower's is which site: the parent registered them by their keys."""
    write_json(run.path / "nodes.json", {site: str(number) for site, number in nodes.items()})


def read_nodes(run: RunDirectory) -> dict[str, int]:
    """Site → node, of the sites that may connect now; none in a simulation."""
    with contextlib.suppress(FileNotFoundError):
        return {site: int(number) for site, number in read_json(run.path / "nodes.json").items()}
    return {}


class Stage(StrEnum):
    """How far the ServerApp has come with a site in a round."""

    ABSENT = "absent"  # never seen
    GREETED = "greeted"  # asked whether it is ready
    READY = "ready"
    ASKED = "asked"  # for its contribution
    STORED = "stored"
    REFUSED = "refused"  # by the site's own gate
    FAILED = "failed"
    LOST = "lost"  # its process died, or it went away


@dataclass(frozen=True)
class Progress:
    """How a round stands (progress.json): by site its stage, and the last code that it gave."""

    stages: dict[str, Stage]
    codes: Codes
    online: tuple[str, ...]


def write_progress(round_folder: Path, progress: Progress) -> None:
    """Write how the round stands, for whoever watches."""
    write_json(round_folder / "progress.json", asdict(progress))


def read_progress(round_folder: Path) -> Progress | None:
    """How the round stands, if anybody has been asked."""
    try:
        values: Mapping[str, Any] = read_json(round_folder / "progress.json")
    except FileNotFoundError:
        return None
    stages = {site: Stage(word) for site, word in values["stages"].items()}
    return Progress(stages, values["codes"], tuple(values["online"]))


def marks_path(round_folder: Path) -> Path:
    """Where the times of the newest Flower run of a round stand."""
    return round_folder / "times.json"


@dataclass
class Marks:
    """When what happened in a Flower run (times.json), in seconds since 1970 UTC.

    The file is written at each mark, so that a run which breaks off still tells how far it came.
    """

    path: Path
    times: dict[str, float] = field(default_factory=dict)

    def first(self, name: str) -> None:
        """Note the time of `name`, unless it happened before."""
        if name not in self.times:
            self.last(name)

    def last(self, name: str) -> None:
        """Note the time of `name`, over an earlier one."""
        self.times[name] = round(time.time(), 3)
        write_json(self.path, self.times)


def read_marks(path: Path) -> dict[str, float]:
    """The times that were marked; none where nothing has happened yet."""
    with contextlib.suppress(FileNotFoundError):
        times: dict[str, float] = read_json(path)
        return times
    return {}


def write_intake(path: Path, intake: Intake) -> None:
    """Write the intake of a round; the parent concludes as soon as it stands there."""
    write_json(path, asdict(intake))


def read_intake(path: Path) -> Intake:
    """The intake of a round."""
    values: Mapping[str, Any] = read_json(path)
    return Intake(**{**values, "asked": tuple(values["asked"])})
