"""Stands in for Flower's `flwr-clientapp`: the installed ClientApp answers, and no other code.

Flower's own command unpacks the bundle that the server sent and imports what it names. Here three
of the names that it looks up are replaced before it starts: the bundle is compared with a list of
digests and never unpacked, the app has one fixed id, and what is called is the installed package.
Should a later Flower not look them up any more, nothing runs.
"""

from __future__ import annotations

import faulthandler
import hashlib
import importlib
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp

APP_ID = "fedcondense/fedcondense"
# SHA-256 of the bundle as Flower builds it from `bundle/`
BUNDLE_SHA256 = "d1b7dc7074f94cd26d901daeef5b8b506184ed3c2cef7d5b8783b322d1d33774"
COMMAND = "flwr.supernode.cli.flwr_clientapp"
RUNNER = "flwr.supernode.runtime.run_clientapp"
LOOKED_UP = (
    "get_load_client_app_fn",
    "get_project_dir",
    "install_app_dependencies",
    "install_from_fab",
)


def allowed_bundles(extra: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The digests of bundles whose requests are answered; never none."""
    return (BUNDLE_SHA256, *extra)


def main() -> None:
    """Take digests, `--` and Flower's own arguments from the command line."""
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    bundles = frozenset(sys.argv[1:split])
    sys.argv = ["flwr-clientapp", *sys.argv[split + 1 :]]
    if not bundles or not all(re.fullmatch("[0-9a-f]{64}", digest) for digest in bundles):
        sys.exit("flwr-clientapp: no list of bundles was given")
    start = localise(Gate(bundles, _muffle()))
    start()


def localise(gate: Gate) -> Callable[[], None]:
    """Flower's command, unable to load anything but what `gate` lets through.

    Raises:
        SystemExit: Flower does not look up every name that is replaced here.
    """
    try:
        runner, command = importlib.import_module(RUNNER), importlib.import_module(COMMAND)
        run, start = runner.run_clientapp, command.flwr_clientapp
        if command.run_clientapp is not run:
            gate.stop("its command runs something else")
        looked_up = {name for name in run.__code__.co_names if hasattr(runner, name)}
    except (ImportError, AttributeError):
        gate.stop("it has been rearranged")
    missing = sorted(set(LOOKED_UP) - looked_up)
    if missing:
        gate.stop(f"it does not look up {', '.join(missing)}")
    for name, replacement in gate.replacements().items():
        setattr(runner, name, replacement)
    return start


@dataclass(frozen=True)
class Gate:
    """What becomes of a bundle; refusals are told to `say` and, without a reason, to the server."""

    bundles: frozenset[str]
    say: Callable[[str], None]

    def replacements(self) -> dict[str, Callable[..., Any]]:
        """What Flower finds under the names of `LOOKED_UP`."""
        return {
            "install_from_fab": lambda content, **_: self._look_at(content),
            "get_project_dir": lambda *_: Path(),
            "get_load_client_app_fn": lambda **_: self._load,
            "install_app_dependencies": lambda *_, **__: self._refuse("it wants to install"),
        }

    def _look_at(self, bundle: bytes) -> None:
        digest = hashlib.sha256(bundle).hexdigest()
        if digest not in self.bundles:
            self._refuse(f"its digest {digest} is not on this site's list")

    def _load(self, app_id: str, version: str, digest: str) -> ClientApp:
        if app_id != APP_ID:
            self._refuse("it has another id")
        try:
            from fedcondense.flower.client_app import app
        except Exception as error:  # noqa: BLE001  (a peer would get its text, with our paths)
            self._refuse(f"the installed app cannot be loaded: {type(error).__name__}")
        return app

    def _refuse(self, why: str) -> NoReturn:
        """Flower replaces the text of this exception, and of no other, by one that says nothing."""
        from flwr.clientapp.client_app import LoadClientAppError

        self.say(f"bundle refused: {why}")
        raise LoadClientAppError("refused")

    def stop(self, why: str) -> NoReturn:
        """End this process: Flower is not the one that is known here."""
        self.say(f"this site runs no app with this version of Flower: {why}")
        sys.exit(1)


def _muffle() -> Callable[[str], None]:
    """Silence this process but for what is given to the function that is returned.

    Libraries that read images print what they find odd, and may quote a patient's name.
    """
    voice, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    faulthandler.enable(voice)  # of a crash the frames alone

    def say(text: str) -> None:
        os.write(voice, f"flwr-clientapp: {text}\n".encode())

    return say


if __name__ == "__main__":
    main()
