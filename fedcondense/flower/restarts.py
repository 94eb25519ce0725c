"""How often Flower has died, and how long to wait before it is started again."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0  # seconds between two starts of Flower
MOST_FAILURES = 10  # one after another
STEADY = 600.0  # seconds of life after which a death is the first one again


@dataclass
class Restarts:
    """Deaths one after another, without a contribution or a steady life in between."""

    failures: int = 0
    pause: float = 0.0

    def count(self, *, uptime: float, has_stored: bool) -> float:
        """Count a death after so many seconds of life; the seconds to wait.

        `has_stored` says whether that life brought a contribution.
        """
        is_steady = uptime >= STEADY
        self.failures = 1 if is_steady else 0 if has_stored else self.failures + 1
        is_first = is_steady or self.pause == 0
        self.pause = FIRST_PAUSE if is_first else min(2 * self.pause, LONGEST_PAUSE)
        return self.pause

    @property
    def is_hopeless(self) -> bool:
        """Whether somebody has to look at it."""
        return self.failures >= MOST_FAILURES
