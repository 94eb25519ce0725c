"""The machine and the versions that a figure was measured with."""

from __future__ import annotations

import platform
import re
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import Field

from fedcondense.files.figures import Figures

_PACKAGES = ("fedcondense", "torch", "torchvision", "numpy", "flwr", "cryptography")


class RunEnvironment(Figures):
    """Where and when it ran: the hash of the global set is promised for equal ones."""

    versions: dict[str, str]
    device: str
    threads: int
    cpu: str
    date: str = Field(description="UTC, ISO 8601")


def this_environment(device: str, threads: int) -> RunEnvironment:
    """What is here and now; `device` and `threads` are those that condensed."""
    return RunEnvironment(
        versions={"python": platform.python_version(), **_installed()},
        device=device,
        threads=threads,
        cpu=_processor(),
        date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def _installed() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # run from a source tree, or a part that this installation lacks
    return found


def _processor() -> str:
    """The processor's own name where the system tells it, else its family."""
    try:
        description = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        description = ""
    named = re.search(r"^model name\s*:\s*(.+)$", description, flags=re.MULTILINE)
    return named[1].strip() if named else platform.processor() or platform.machine()
