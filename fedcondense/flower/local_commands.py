"""The commands that a site's Flower processes find on their PATH: ours, and none of Flower's own.

Flower starts a task by a bare command name, and the server chooses the type of the task. So one
name leads to the installed ClientApp and every other one to a refusal.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from fedcondense.errors import FederationError
from fedcondense.flower.processes import program

CLIENT_APP = "flwr-clientapp"
CLIENT_MODULE = "fedcondense.flower.installed_app"  # what that command runs
SUPEREXEC = "flower-superexec"
REFUSED = ("flwr-agentapp", "flwr-connector", "flwr-model", "flwr-serverapp", "flwr-simulation")
SYSTEM_PATH = ("/usr/bin", "/bin")
_HEAD = "#!/bin/sh\n# Written by `fedcondense-site join`, anew at each start.\n"


def write_commands(folder: Path, bundles: Iterable[str]) -> str:
    """Make `folder` hold the commands and nothing else; the PATH that leads to them.

    Args:
        folder: readable by this user alone afterwards.
        bundles: SHA-256 of the Flower bundles whose requests are answered.

    Raises:
        FederationError: Flower knows a type of task that has no command here.
    """
    _refuse_unknown_tasks()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    module = [sys.executable, "-P", "-m", CLIENT_MODULE]
    _write(folder / CLIENT_APP, f'exec {shlex.join([*module, *bundles])} -- "$@"')
    _write(folder / SUPEREXEC, f'exec {shlex.join([program(SUPEREXEC)])} "$@"')
    for name in REFUSED:
        _write(folder / name, f'echo "{name}: this site runs no task of this type" >&2\nexit 1')
    return ":".join([str(folder.absolute()), *SYSTEM_PATH])


def _refuse_unknown_tasks() -> None:
    from flwr.supercore.constant import TASK_TYPE_TO_COMMAND

    unknown = set(TASK_TYPE_TO_COMMAND.values()) - {CLIENT_APP, *REFUSED}
    if unknown:
        raise FederationError(
            f"this version of Flower starts {', '.join(sorted(unknown))}",
            hint="pip install 'flwr>=1.41,<1.42'",
        )


def _write(path: Path, body: str) -> None:
    path.write_text(f"{_HEAD}{body}\n", encoding="utf-8")
    path.chmod(0o700)
