"""What is wrong with single images of a source, told by row number; by name only on a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from fedcondense.errors import DataError

NAMED = 3  # files that an error names
RANGES = 8  # ranges of row numbers to a reason
GENERAL_HINT = "repair these files or take them out; none is skipped silently"


class Naming(StrEnum):
    """How images are meant: in a log by row number, on the operator's own terminal by file.

    File names often hold the patient's; a row number means something beside the data alone.
    """

    ROWS = "rows"
    FILES = "files"


@dataclass(frozen=True)
class Problem:
    """Why one image cannot be used. `reason` holds no value of the file, no name, no label.

    Attributes:
        row: row number in the local index, from 1: of the sorted files of a folder, or of the
            CSV file, whose header is row 1.
        reason: what is wrong, from our own words alone.
        hint: what to do about it.
        file: the name within the source; empty where it must not be told.
    """

    row: int
    reason: str
    hint: str = GENERAL_HINT
    file: str = field(default="", repr=False)


class UnusableImages(DataError):
    """Some images of a source cannot be used. The text means them by row; `named` by file."""

    def __init__(self, message: str, *, hint: str, by_file: str) -> None:
        super().__init__(message, hint=hint)
        self._by_file = by_file

    def named(self) -> DataError:
        """The same error with file names, for the operator's own terminal."""
        return DataError(self._by_file, hint=self.hint)


@contextlib.contextmanager
def naming_files() -> Iterator[None]:
    """Errors about images that are raised inside name their files: for a terminal, never a log."""
    try:
        yield
    except UnusableImages as error:
        raise error.named() from None


def refusal(problems: Sequence[Problem], total: int) -> UnusableImages:
    """One error about all `problems` among `total` images."""
    ordered = sorted(problems, key=lambda problem: problem.row)
    hints = {problem.hint for problem in problems}
    unusable = f"{len({problem.row for problem in problems})} of {total} images cannot be used"
    return UnusableImages(
        f"{unusable}: {_by_reason(ordered)}",
        hint=hints.pop() if len(hints) == 1 else GENERAL_HINT,
        by_file=f"{unusable}: {_by_file(ordered)}",
    )


def _by_file(problems: Sequence[Problem]) -> str:
    told = [f"{p.file or row_ranges([p.row])}: {p.reason}" for p in problems[:NAMED]]
    more = len(problems) - NAMED
    return "; ".join(told + ([f"and {more} more"] if more > 0 else []))


def _by_reason(problems: Sequence[Problem]) -> str:
    rows: dict[str, list[int]] = {}
    for problem in problems:
        rows.setdefault(problem.reason, []).append(problem.row)
    return "; ".join(f"{reason}: {row_ranges(of_reason)}" for reason, of_reason in rows.items())


def row_ranges(rows: Iterable[int]) -> str:
    """Ascending row numbers in short.

    >>> row_ranges([2, 3, 4, 9])
    'rows 2-4, 9'
    >>> row_ranges([7])
    'row 7'
    """
    ranges: list[tuple[int, int]] = []
    for row in rows:
        if ranges and row <= ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], row)
        else:
            ranges.append((row, row))
    texts = [f"{first}" if first == last else f"{first}-{last}" for first, last in ranges[:RANGES]]
    more = sum(last - first + 1 for first, last in ranges[RANGES:])
    word = "row" if len(ranges) == 1 and ranges[0][0] == ranges[0][1] else "rows"
    return f"{word} {', '.join(texts)}" + (f" and {more} more" if more else "")
