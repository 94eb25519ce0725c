"""What the ServerApp and its parent tell each other: three small JSON files of a round."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedcondense.files.storage import read_json, write_json

ROUND = 1  # the only one
Codes = dict[str, str]  # site → FC code


@dataclass(frozen=True)
class Plan:
    """What the parent asks of one Flower run (request.json).

    Sites are asked in the order of `ask`, at most `at_once` at a time; `refused` and `failed` hold
    the codes of sites that said so in an earlier Flower run of the same round.
    """

    round: int
    ask: tuple[str, ...]
    at_once: int
    refused: Codes = field(default_factory=dict)
    failed: Codes = field(default_factory=dict)


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
