"""The directory of a simulation: whose it is, and what of it is finished."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedcondense.config.loading import parse_settings
from fedcondense.config.scenario import Scenario, scenario_toml
from fedcondense.errors import RunDirectoryError, SettingsError
from fedcondense.files.lock import locked, locked_if_free
from fedcondense.files.storage import write_atomically, write_json
from fedcondense.research.report_schema import StudyReport
from fedcondense.research.study_report import read_study_report


class RunRoot:
    """Holds `scenario.toml`, a folder per partition seed, the report, and at last `done.json`.

    A cell of a sweep shares with the others what `sweep`, the sweep's own directory, keeps.
    """

    def __init__(self, path: Path, *, sweep: Path | None = None) -> None:
        self.path = path
        self.sweep = sweep

    @property
    def evaluations(self) -> Path:
        """Where the predictions of trained networks are kept, by what they were trained on."""
        return (self.sweep or self.path) / "evaluations"

    def repetition(self, seed: int) -> Path:
        """The folder of one partition seed."""
        return self.path / f"seed-{seed}"

    def experts(self, seed: int) -> Path | None:
        """Where the sites of a partition seed keep experts for all cells; None: each its own."""
        return None if self.sweep is None else self.sweep / "experts" / f"seed-{seed}"

    def is_done(self) -> bool:
        """Whether the report stands."""
        return (self.path / "done.json").exists()

    def finish(self) -> None:
        """Mark the run as done; the last thing that is written."""
        write_json(self.path / "done.json", {"report": "report.html"})

    @contextmanager
    def claim(self, scenario: Scenario) -> Iterator[None]:
        """Take the directory for `scenario`, for as long as the context lasts.

        Raises:
            RunDirectoryError: it holds foreign files or another scenario, cannot be written, or
                another process works in it.
        """
        with self.claim_if_free(scenario) as mine:
            if not mine:
                raise RunDirectoryError(
                    f"{self.path}: another process works in this directory",
                    hint="wait for it, or name another directory with --out",
                )
            yield

    @contextmanager
    def claim_if_free(self, scenario: Scenario) -> Iterator[bool]:
        """Like `claim`, but say False where another process works in the directory."""
        with self._writable():
            self.path.mkdir(parents=True, exist_ok=True)
            with locked(self.path):  # what another process is writing is not taken for foreign
                self._take(scenario)
            (self.path / "lock").touch(0o600)
        with locked_if_free(self.path / "lock") as mine:
            yield mine

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunDirectoryError(
                f"{self.path}: {(error.strerror or 'cannot be written').lower()}",
                hint="name a directory that this user can write with --out",
            ) from None

    def _take(self, scenario: Scenario) -> None:
        kept = self.path / "scenario.toml"
        if kept.exists():
            self._refuse_other(scenario, kept)
        elif any(self.path.iterdir()):
            raise RunDirectoryError(
                f"{self.path}: holds files that no simulation wrote",
                hint="name an empty or new directory with --out",
            )
        else:
            write_atomically(kept, scenario_toml(scenario).encode("utf-8"))

    def _refuse_other(self, scenario: Scenario, kept: Path) -> None:
        try:
            values = tomllib.loads(kept.read_text(encoding="utf-8"))
            same = parse_settings(Scenario, values, kept.name) == scenario
        except (SettingsError, ValueError):
            same = False
        if not same:
            raise RunDirectoryError(
                f"{self.path}: holds the run of another scenario",
                hint="name another directory with --out, or delete this one",
            )


def finished_report(scenario: Scenario, out: Path) -> StudyReport | None:
    """The report of a run of `scenario` that is done, or None.

    Raises:
        RunDirectoryError: see `RunRoot.claim`.
    """
    root = RunRoot(out)
    if not root.is_done():
        return None
    with root.claim(scenario):
        return read_study_report(out)
