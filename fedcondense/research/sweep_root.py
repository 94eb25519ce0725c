"""The directory of a sweep: whose it is, its cells, and what has failed."""

from __future__ import annotations

import tomllib
from pathlib import Path

from fedcondense.config.cells import Cell
from fedcondense.config.loading import parse_settings
from fedcondense.config.scenario import Scenario, scenario_toml
from fedcondense.errors import FedcondenseError, RunDirectoryError, SettingsError
from fedcondense.files.lock import locked
from fedcondense.files.storage import read_json, write_atomically, write_json
from fedcondense.research.run_root import RunRoot
from fedcondense.research.sweep_schema import Failure


class SweepRoot:
    """Holds `scenario.toml`, a simulation per cell, what cells share, the report, `done.json`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cell(self, cell: Cell) -> RunRoot:
        """The directory of one cell."""
        return RunRoot(self.path / "cells" / cell.name, sweep=self.path)

    def is_done(self) -> bool:
        """Whether every cell of the scenario that stands here is done."""
        return (self.path / "done.json").exists()

    def finish(self) -> None:
        """Mark the sweep as done; the last thing that is written."""
        write_json(self.path / "done.json", {"report": "report.html"})

    def join(self, scenario: Scenario) -> None:
        """Take part in the sweep of this directory; other processes may be at work in it.

        A sweep of the same name may have changed: cells that it still has are found again.

        Raises:
            RunDirectoryError: it holds foreign files or another scenario, or cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with locked(self.path):
                self._take(scenario)
        except OSError as error:
            raise RunDirectoryError(
                f"{self.path}: {(error.strerror or 'cannot be written').lower()}",
                hint="name a directory that this user can write with --out",
            ) from None

    def failure(self, cell: Cell) -> Failure | None:
        """How the cell failed when it was last tried."""
        path = self._failure(cell)
        return Failure.model_validate(read_json(path)) if path.exists() else None

    def failed_since(self, cell: Cell, began: float) -> bool:
        """Whether the cell was tried in vain, by whatever process, since `began`."""
        path = self._failure(cell)
        return path.exists() and path.stat().st_mtime >= began

    def record(self, cell: Cell, error: FedcondenseError) -> None:
        """Write down how a cell failed."""
        failure = Failure(code=error.code, message=error.message, hint=error.hint)
        write_json(self._failure(cell), failure.model_dump())

    def forgive(self, cell: Cell) -> None:
        """Forget the failure of a cell that is done now."""
        self._failure(cell).unlink(missing_ok=True)

    def _failure(self, cell: Cell) -> Path:
        return self.path / "failures" / f"{cell.name}.json"

    def _take(self, scenario: Scenario) -> None:
        kept = self.path / "scenario.toml"
        if kept.exists():
            standing = _scenario_in(kept)
            if standing == scenario:
                return
            if standing is None or standing.sweep is None or standing.name != scenario.name:
                raise RunDirectoryError(
                    f"{self.path}: holds the run of another scenario",
                    hint="name another directory with --out, or delete this one",
                )
        elif any(self.path.iterdir()):
            raise RunDirectoryError(
                f"{self.path}: holds files that no simulation wrote",
                hint="name an empty or new directory with --out",
            )
        (self.path / "done.json").unlink(missing_ok=True)
        write_atomically(kept, scenario_toml(scenario).encode("utf-8"))


def _scenario_in(path: Path) -> Scenario | None:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        return parse_settings(Scenario, values, path.name)
    except (SettingsError, ValueError):
        return None
