"""Sites that really condense, keep their state at every step, and wait where they are told to.

So a test can kill a process in a phase that it is certainly in, and what a site sends depends on
how it went on. A site's processes find all of it by `paced/sitecustomize.py`.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any

from commands_kit import HERE, Machine, edit
from deployment_kit import Consortium, make_consortium
from hospital_kit import TINY

from fedcondense.config.scenario import ReleaseMode
from fedcondense.config.site import SiteConfig
from fedcondense.config.study import Study
from fedcondense.exchange.run_description import Request
from fedcondense.files.storage import read_json, write_json
from fedcondense.progress import Step, Watch, silent

KITS = Path(__file__).parent
PATHS = os.pathsep.join([str(KITS / "paced"), str(KITS)])
STEPS = 200  # iterations of a condensation
MIDST = 120  # the one at which a site waits
CONDENSING = "condensing"  # a stage of its journal
LOOK = 0.02  # seconds
STUDY = {"images_per_class": 2, "distill": {**TINY, "iterations": STEPS}}
# read from nowhere, and enough of each class for gate and audits
PHANTOMS = {"kind": "phantoms", "images_per_class": 40, "size": 16}


class Point(StrEnum):
    """Where a condensation waits."""

    STEP = "step"  # done and told, its state not yet kept
    WRITING = "writing"  # its state is written, and not yet in its place


@dataclass(frozen=True)
class Pace:
    """Where the condensation of the site with this state directory waits, and whether it does."""

    state: Path

    @property
    def _order(self) -> Path:
        return self.state / "pace.json"

    @property
    def _waiting(self) -> Path:
        return self.state / "waiting.json"

    def wait_at(self, point: Point, *, spin: bool = False) -> None:
        """Let it wait in the midst of its steps; `spin`: as busy as Python can be."""
        write_json(self._order, {"point": point, "spin": spin})

    def is_waiting(self) -> bool:
        """Whether it has come there."""
        return self._waiting.exists()

    def go_on(self) -> None:
        """Let it wait no more, nor the next one that comes there."""
        self._waiting.unlink(missing_ok=True)
        self._order.unlink(missing_ok=True)

    def come_to(self, point: Point) -> None:
        """Wait, if this is the place; a condensing process calls it."""
        if not self._order.exists() or read_json(self._order)["point"] != point:
            return
        spin = read_json(self._order)["spin"]
        write_json(self._waiting, os.getpid())
        while self._order.exists():
            sum(range(10**6)) if spin else time.sleep(LOOK)


@dataclass
class Paced:
    """A `Watch` of one condensation, which waits at its place."""

    pace: Pace
    watch: Watch
    step: int = 0

    def __call__(self, step: Step) -> None:
        """Tell, then wait."""
        self.watch(step)
        if step.stage == CONDENSING:
            self.step = step.done
            self.come_to(Point.STEP)

    def come_to(self, point: Point) -> None:
        """Wait there, in the midst of the steps."""
        if self.step == MIDST:
            self.pace.come_to(point)

    def synced(self, sync: Callable[[int], None], descriptor: int) -> None:
        """In the place of `os.fsync`: a file is written and about to be moved."""
        sync(descriptor)
        if Path(f"/proc/self/fd/{descriptor}").readlink().name.startswith(".checkpoint."):
            self.come_to(Point.WRITING)


def contribute_paced(
    site: SiteConfig,
    study: Study,
    request: Request,
    *,
    mode: ReleaseMode = ReleaseMode.ENFORCED,
    watch: Watch = silent,
) -> bytes:
    """The site's own `contribute`, with a state kept at every step, and waiting where it should."""
    from fedcondense.site.checkpoint import FileCheckpoints

    FileCheckpoints.__init__.__kwdefaults__["interval"] = 0.0
    paced = Paced(Pace(site.state), watch)
    os.fsync = functools.partial(paced.synced, os.fsync)
    sealed: bytes = _own().contribute(site, study, request, mode=mode, watch=paced)
    return sealed


def _own() -> ModuleType:
    """The module in whose place `paced/sitecustomize.py` put another."""
    del sys.modules["fedcondense.site.contribute"]
    return importlib.import_module("fedcondense.site.contribute")


def machine_of(folder: Path, machine: Machine = HERE, paths: str = PATHS) -> Machine:
    """Where a site's commands run; all of its processes name its folder in their environment."""
    return replace(machine, environment={"PYTHONPATH": paths, "OWNER": str(folder)})


def paced_consortium(
    folder: Path, *, study: Mapping[str, Any] | None = None, **changes: Any
) -> Consortium:
    """Two sites with a quorum of two, ready to `join`."""
    consortium = make_consortium(
        folder, sites=2, quorum=2, study={**STUDY, **(study or {})}, **changes
    )
    for site in consortium.sites.values():
        site.may_join()
        release = {"min_patients_per_class": 2}
        edit(site.folder / "site.toml", images=PHANTOMS, release=release)
    return consortium
