"""How a server stands: read from its files, and asked of its two health services."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

from fedcondense.config.server import ServerConfig
from fedcondense.exchange.certificates import expiry
from fedcondense.files.storage import nearest_existing
from fedcondense.flower.control import https_status
from fedcondense.flower.health import is_serving
from fedcondense.flower.round_files import Progress, Stage, read_intake, read_progress
from fedcondense.server.current_run import CurrentRun, find_run, is_locked, study_of
from fedcondense.server.enrolment import Register, Standing
from fedcondense.server.intake import stored_sites


@dataclass(frozen=True)
class SiteStatus:
    """One site: whether its keys are accepted, whether it is online, and how far it came.

    `code` is the last error code that it gave, or that it earned.
    """

    name: str
    standing: Standing
    online: bool
    stage: Stage
    code: str


@dataclass(frozen=True)
class RunStatus:
    """The newest run of the study; `round` is None when all rounds are concluded."""

    path: Path
    round: int | None
    rounds: int
    quorum: int
    stored: int
    deadline: datetime
    finished: bool
    bytes: int


@dataclass(frozen=True)
class ServerStatus:
    """How the server stands; `serving` says that its public port is open to sites."""

    study: str
    digest: str
    running: bool
    serving: bool
    sites: tuple[SiteStatus, ...]
    free_bytes: int
    certificate_ends: datetime
    run: RunStatus | None = None
    opening_keys: tuple[str, ...] = field(default=())

    @property
    def is_well(self) -> bool:
        """Whether nobody has to look at it: it serves, or its run is finished."""
        return self.serving or (self.run is not None and self.run.finished)


def server_status(config: ServerConfig) -> ServerStatus:
    """How the server of these settings stands now.

    Raises:
        FedcondenseError: a file of the server is missing, foreign or altered.
    """
    study, running = study_of(config), is_locked(config)
    current = find_run(config, study)
    standing = Register(config.enrolled, config.revoked).standing(now=time.time())
    return ServerStatus(
        study=study.name,
        digest=study.digest,
        running=running,
        serving=running and is_open(config),
        sites=_sites(standing, current, running=running),
        free_bytes=shutil.disk_usage(nearest_existing(config.runs)).free,
        certificate_ends=expiry(config.tls.certificate),
        run=None if current is None else _run(current),
        opening_keys=tuple(sorted(path.name for path in config.keys.glob("opening-*.key"))),
    )


def is_open(config: ServerConfig) -> bool:
    """Whether Flower's process is up, and its public port is open."""
    address = config.address
    answer = https_status(address.nearest, address.port, config.tls.authority)
    return is_serving(address.health_port) and answer == HTTPStatus.OK


def _run(current: CurrentRun) -> RunStatus:
    run, description = current.run, current.run.description()
    newest = current.open_round or current.rounds
    return RunStatus(
        path=run.path,
        round=current.open_round,
        rounds=current.rounds,
        quorum=description.quorum,
        stored=len(stored_sites(run, newest)),
        deadline=datetime.fromtimestamp(description.deadline, UTC),
        finished=current.is_finished,
        bytes=_bytes_in(run.path),
    )


def _bytes_in(folder: Path) -> int:
    """Of all files below; one that vanishes meanwhile was a temporary one."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += Path(parent, name).lstat().st_size
    return size


def _sites(
    standing: dict[str, Standing], current: CurrentRun | None, *, running: bool
) -> tuple[SiteStatus, ...]:
    progress = _progress(current) if current else Progress({}, {}, ())
    online = progress.online if running else ()
    return tuple(
        SiteStatus(
            name=site,
            standing=kind,
            online=site in online,
            stage=progress.stages.get(site, Stage.ABSENT),
            code=progress.codes.get(site, ""),
        )
        for site, kind in standing.items()
    )


def _progress(current: CurrentRun) -> Progress:
    """Of the newest round: what the ServerApp tells, then what it wrote at the end, then files."""
    run, number = current.run, current.open_round or current.rounds
    told = read_progress(run.round(number)) or Progress({}, {}, ())
    stages, codes = dict(told.stages), dict(told.codes)
    if run.intake(number).exists():
        intake = read_intake(run.intake(number))
        for stage, given in ((Stage.REFUSED, intake.refused), (Stage.FAILED, intake.failed)):
            stages |= dict.fromkeys(given, stage)
            codes |= given
    stages |= dict.fromkeys(stored_sites(run, number), Stage.STORED)
    return Progress(stages, codes, told.online)
