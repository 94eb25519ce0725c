"""The parent of a deployed run: keeps Flower going, concludes rounds, and goes on after any death.

The parent meets the ServerApp in the run directory alone. It is the only process that reads the
opening key, and it reads it when a round is concluded.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from fedcondense.config.server import ServerConfig
from fedcondense.exchange.certificates import RENEW_WITHIN, ServerTls, check_server_tls
from fedcondense.files.storage import remove_unfinished
from fedcondense.flower.deployed_round import Conclude, DeployedRound
from fedcondense.flower.notify import READY, STOPPING, notify
from fedcondense.flower.superlink import await_ports
from fedcondense.progress import Watch, silent
from fedcondense.server.current_run import (
    CurrentRun,
    begin_run,
    demand_room,
    find_run,
    is_locked,
    locked,
    study_of,
)
from fedcondense.server.enrolment import Register
from fedcondense.server.events import note

_log = logging.getLogger(__name__)

Finish = Callable[[CurrentRun], None]


def serve(
    config: ServerConfig, *, conclude: Conclude, finish: Finish, watch: Watch = silent
) -> CurrentRun:
    """Play the study of a SERVER.toml to its end, from wherever an earlier process left it.

    Args:
        config: the coordinator's settings.
        conclude: opens, aggregates and evaluates a round, and writes done.json last.
        finish: writes the report, last of all; the opening key is gone by then.
        watch: told how many sites have contributed.

    Returns:
        The finished run.

    Raises:
        QuorumMissed: the deadline passed; the same command gives the sites more time.
        FederationError: Flower cannot be started, or dies again and again.
        FedcondenseError: a file of the server is missing, foreign or altered.
    """
    check_tls(config)
    with locked(config), _stopping():
        current = _found_or_begun(config)
        remove_unfinished(current.run.path)
        while (number := current.open_round) is not None:
            DeployedRound(config, current, number, conclude, watch).play()
        notify(READY)  # for a service that finds nothing left to do
        if not current.is_finished:
            current.discard_key()
            note(current.run, "key deleted")
            if not current.run.told(current.rounds).exists():
                DeployedRound(config, current, current.rounds, conclude, watch).tell_sites()
            finish(current)
            note(current.run, "finished")
    return current


@contextmanager
def _stopping() -> Iterator[None]:
    """Tell the service manager that what follows is the end."""
    try:
        yield
    finally:
        notify(STOPPING)


def check_tls(config: ServerConfig) -> datetime:
    """When the server's certificate ends; a warning is logged a month before.

    Raises:
        KeyFileError: sites would refuse it.
    """
    files = ServerTls(config.tls.certificate, config.tls.key, config.tls.authority)
    now = datetime.now(UTC)
    end = check_server_tls(files, config.address.names, now=now)
    if end - now < RENEW_WITHIN:
        _log.warning("the server's certificate ends on %s: renew it", end.date())
    return end


def check_ports(config: ServerConfig) -> None:
    """Whether the ports are free that a run needs, before evaluation images are read for it.

    Raises:
        FederationError: somebody else has one.
        FedcondenseError: as `serve`.
    """
    current = find_run(config, study_of(config))
    is_needed = current is None or not current.is_finished
    if is_needed and not is_locked(config):  # another server is told as what it is, by `serve`
        await_ports(config.address)


def _found_or_begun(config: ServerConfig) -> CurrentRun:
    study = study_of(config)
    current = find_run(config, study)
    if current is None or current.has_rounds_to_come:
        sites = Register(config.enrolled, config.revoked).active(now=time.time())
        demand_room(study, len(sites))
    if current is None:
        current = begin_run(config, study, now=time.time())
        note(current.run, "begun")
        _log.info("run %s begins: study digest %s", current.run.path.name, study.digest)
    elif not current.is_finished:
        note(current.run, "resumed")
        _log.info("run %s goes on", current.run.path.name)
    return current
