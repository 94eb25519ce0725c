"""Where a client process finds its site: named by the SuperNode's own settings, or played."""

from __future__ import annotations

import contextlib
import os
import traceback
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context

from fedcondense.config.loading import read_toml
from fedcondense.config.scenario import ReleaseMode
from fedcondense.errors import FedcondenseError, FederationError
from fedcondense.files.storage import read_json
from fedcondense.flower.simulation import SIMULATION

LARGEST_LOG = 2**20  # bytes
SITE_CONFIG = "site-config"  # node config of a deployed site: the path of its SITE.toml


@dataclass(frozen=True)
class Home:
    """A site's SITE.toml, the release mode, and whether the site is a hospital or played by us."""

    settings: Path
    mode: ReleaseMode
    deployed: bool


def home_of(context: Context) -> Home:
    """The site of this process; no message can choose it.

    Raises:
        FederationError: it has none.
    """
    settings = context.node_config.get(SITE_CONFIG)
    if settings is not None:
        return Home(Path(str(settings)), ReleaseMode.ENFORCED, deployed=True)
    try:
        repetition = Path(os.environ[SIMULATION])
        names = read_json(repetition / "sites.json")
        name = names[int(context.node_config["partition-id"])]
    except (KeyError, IndexError, OSError, ValueError) as error:
        raise FederationError(
            f"this process plays no site: {type(error).__name__}",
            hint=f"{SIMULATION} must name a repetition with sites.json",
        ) from error
    scenario = read_toml(repetition.parent / "scenario.toml")
    mode = ReleaseMode(scenario.get("release", ReleaseMode.ENFORCED))
    return Home(repetition / "sites" / name / "site.toml", mode, deployed=False)


def keep_trace(error: Exception, home: Home | None, state: Path | None) -> None:
    """Append the trace of `error` to `errors.log` at the site; a long one begins anew, once kept.

    At a hospital the texts of exceptions are left out, for they may name a patient's file: there
    the log says what was raised and where, and `check` and `preview` tell the rest on a terminal.
    """
    if home is None or (home.deployed and state is None):
        text, folder = _frames(error), None
    elif home.deployed:
        text, folder = _frames(error), state
    else:
        text, folder = "".join(traceback.format_exception(error)), home.settings.parent
    if folder is None:
        os.write(2, text.encode("utf-8", "backslashreplace"))
        return
    log = folder / "errors.log"
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    with contextlib.suppress(OSError):  # a full disk must not become a message either
        if log.exists() and log.stat().st_size > LARGEST_LOG:
            log.replace(folder / "errors.old.log")
        descriptor = os.open(log, flags, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)


def _frames(error: BaseException) -> str:
    """Types and frames of an exception and of what led to it, without any text of theirs."""
    before = error.__cause__ or error.__context__
    code = f" {error.code}" if isinstance(error, FedcondenseError) else ""
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{_frames(before) if before else ''}{type(error).__qualname__}{code}\n{frames}"
