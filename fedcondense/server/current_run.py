"""The run that the server is in: found again on the disk, or begun.

A run begins with its opening key, a file beside the run-signing key and never in the run directory,
so that a killed server can go on. Nothing here reads that file but `opening_key`, which the
conclusion asks, and it is deleted once the last global synthetic set is written.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from fedcondense.config.server import ServerConfig, seconds_of
from fedcondense.config.study import Study, load_study
from fedcondense.errors import KeyFileError, RunDirectoryError, SettingsError
from fedcondense.exchange.keys import OpeningKey, SigningKey, delete_key
from fedcondense.exchange.run_description import RunDescription, sign_description
from fedcondense.files import lock
from fedcondense.files.storage import write_atomically
from fedcondense.server.run_directory import RunDirectory


@dataclass(frozen=True)
class CurrentRun:
    """A run with its study, and where its opening key is."""

    run: RunDirectory
    study: Study
    key_path: Path

    @property
    def rounds(self) -> int:
        """How many rounds the study has."""
        return self.study.rounds

    @property
    def open_round(self) -> int | None:
        """The first round that is not concluded; None when all are."""
        rounds = range(1, self.rounds + 1)
        return next((n for n in rounds if not self.run.done(n).exists()), None)

    @property
    def has_rounds_to_come(self) -> bool:
        """Whether the global set of a round that is not concluded is to be sent to the sites."""
        return self.open_round is not None and self.open_round < self.rounds

    @property
    def is_finished(self) -> bool:
        """Whether the report stands, which is written last."""
        return self.run.report_json_path.exists()

    def opening_key(self) -> OpeningKey:
        """The key that contributions of this run are sealed to: for the conclusion alone.

        Raises:
            KeyFileError: it is missing, malformed, or readable by others.
        """
        return OpeningKey.load(self.key_path)

    def discard_key(self) -> None:
        """Delete the opening key; nothing that was sealed to it can be opened any more."""
        delete_key(self.key_path)


@contextmanager
def locked(config: ServerConfig) -> Iterator[None]:
    """Keep every other server out of the folder of runs, for as long as the context lasts.

    Raises:
        RunDirectoryError: another server works there, or it cannot be written.
    """
    with lock.locked_if_free(_lock(config)) as mine:
        if not mine:
            raise RunDirectoryError(
                f"{config.runs}: another server works here",
                hint="`fedcondense-server status` says how it does",
            )
        yield


def is_locked(config: ServerConfig) -> bool:
    """Whether a server works in the folder of runs."""
    return lock.is_locked(config.runs / "lock")


def find_run(config: ServerConfig, study: Study) -> CurrentRun | None:
    """The newest run of a study.

    Raises:
        RunDirectoryError: a run of another study under the same name is not finished.
    """
    newest = None
    for run in _runs(config):
        if not _is_of(run, study):
            _demand_finished(run, study)
        else:
            key = config.opening_key(run.description().run)
            newest = CurrentRun(run, study, key)
    return newest


def begin_run(config: ServerConfig, study: Study, *, now: float) -> CurrentRun:
    """Make an opening key and a run directory, signed by the run-signing key.

    Raises:
        KeyFileError: the run-signing key cannot be read.
    """
    signer, opening = SigningKey.load(config.run_signing_key), OpeningKey.generate()
    description = RunDescription(
        study_digest=study.digest,
        run=secrets.token_hex(16),
        recipient=opening.recipient.raw.hex(),
        quorum=study.quorum,
        deadline=_deadline(config, now),
        purpose="release",
    )
    begun = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    path = config.runs / f"{study.name}-{begun}"
    current = CurrentRun(RunDirectory(path), study, config.opening_key(description.run))
    opening.save(current.key_path)
    RunDirectory.create(path, study, sign_description(description, signer))
    return current


def newest_run(config: ServerConfig) -> CurrentRun:
    """The newest run of the server's study, all of whose rounds are concluded.

    Raises:
        RunDirectoryError: there is none, or it is not concluded.
    """
    current = find_run(config, study_of(config))
    if current is None or current.open_round is not None:
        raise RunDirectoryError(
            f"{config.runs}: no run of this study is concluded",
            hint="`fedcondense-server run` concludes one",
        )
    return current


def renew_deadline(config: ServerConfig, current: CurrentRun, *, now: float) -> None:
    """Give a run that came to its end below the quorum more time: all else of it stays.

    Sites that have sealed to it send the same bytes again.

    Raises:
        KeyFileError: the run-signing key cannot be read.
    """
    description = replace(current.run.description(), deadline=_deadline(config, now))
    signed = sign_description(description, SigningKey.load(config.run_signing_key))
    write_atomically(current.run.description_path, signed)


def demand_room(study: Study, sites: int) -> None:
    """See that a further round could be sent what all of so many sites contribute to one.

    Raises:
        SettingsError: it would be more than a site takes in with one request.
    """
    if study.rounds > 1 and not study.fits_a_request(sites):
        raise SettingsError(
            f"study {study.name}: rounds: the global set of {sites} sites is above the 64 MB that "
            "sites take in",
            hint="enroll fewer sites, or agree on fewer or smaller images or on one round",
        )


def demand_key(current: CurrentRun) -> None:
    """See that what will come in can be opened, without reading the key.

    Raises:
        KeyFileError: the key of a run that is not concluded is gone.
    """
    if current.open_round is not None and not current.key_path.exists():
        raise KeyFileError(
            f"{current.key_path.name}: the opening key of this run is gone",
            hint=f"restore it, or move {current.run.path.name} away and begin a new run",
        )


def study_of(config: ServerConfig) -> Study:
    """The study of a server.

    Raises:
        SettingsError: the file is not a study.
    """
    return load_study(config.study)


def _deadline(config: ServerConfig, now: float) -> int:
    return int(now + seconds_of(config.time.deadline))


def _runs(config: ServerConfig) -> list[RunDirectory]:
    """All runs, oldest first; a folder without a description is one that never began."""
    found = [RunDirectory(path) for path in config.runs.glob("*-*Z") if path.is_dir()]
    begun = [run for run in found if run.description_path.exists()]
    return sorted(begun, key=lambda run: run.path.name.rsplit("-", 1)[-1])


def _is_of(run: RunDirectory, study: Study) -> bool:
    return run.description().study_digest == study.digest


def _demand_finished(run: RunDirectory, study: Study) -> None:
    same_name = run.path.name.rsplit("-", 1)[0] == study.name
    if same_name and not run.report_json_path.exists():
        raise RunDirectoryError(
            f"{run.path.name}: not finished, and of a study with another digest",
            hint="restore the study file, or move the run directory away",
        )


def _lock(config: ServerConfig) -> Path:
    path = config.runs / "lock"
    try:
        config.runs.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(0o600)
    except OSError as error:
        raise RunDirectoryError(
            f"{config.runs}: {(error.strerror or 'cannot be written').lower()}",
            hint="name a folder that this user can write as `runs`",
        ) from None
    return path
