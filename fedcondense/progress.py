"""What a long computation reports, not knowing who listens, and the memory that it took."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

BYTES_PER_KIBIBYTE = 1024


@dataclass(frozen=True)
class Step:
    """One report: `done` of `total` steps of `stage`, with figures that may be plotted.

    `figures` holds plain numbers only (losses, accuracies, counts), never data or names.
    """

    stage: str
    done: int
    total: int
    figures: dict[str, float] = field(default_factory=dict)


Watch = Callable[[Step], None]


def silent(step: Step) -> None:
    """Listen to nothing."""


def peak_megabytes() -> float:
    """Most resident memory that this process ever had, in MB of 10^6 bytes.

    `getrusage` is no help: it begins with the peak of the process that this one was forked from.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"^VmHWM:\s*(\d+) kB$", status, flags=re.MULTILINE)
    return int(found[1]) * BYTES_PER_KIBIBYTE / 1e6 if found else 0.0
