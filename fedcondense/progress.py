"""What a long computation reports, not knowing who listens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


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
