"""What became of each cell: kept line by line, so that a matrix can be played in parts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

# how the first site condensed
WHOLE, IN_PARTS, BEGAN_AGAIN = "at a stretch", "from its checkpoint", "began again"


@dataclass(frozen=True)
class Row:
    """What became of a cell; one without a victim is an undisturbed study.

    `hit`: the phase lasted when the victim was killed. `told`: every site was told the result.
    `steps`: how the first site condensed.
    """

    victim: str
    phase: str
    hit: bool = True
    ended: bool = False
    same: bool = False
    told: bool = False
    orphans: tuple[str, ...] = ()
    restarts: int = 0
    seconds: float = 0.0
    digest: str = ""
    steps: str = WHOLE
    note: str = ""

    @property
    def name(self) -> str:
        return f"{self.victim}/{self.phase}"

    @property
    def problems(self) -> list[str]:
        """What is wrong, in words; empty if all went well."""
        if not self.hit:
            return ["phase missed"]
        wrong = {
            "did not end": not self.ended,
            "another set": self.ended and not self.same,
            "site not told": self.ended and not self.told,
            BEGAN_AGAIN: self.ended and self.steps == BEGAN_AGAIN,
            f"{len(self.orphans)} orphans": bool(self.orphans),
        }
        return [word for word, is_so in wrong.items() if is_so]

    @property
    def is_well(self) -> bool:
        return not self.problems

    @property
    def brief(self) -> str:
        """One field of the table."""
        resumed = ", resumed" if self.steps == IN_PARTS else ""
        return (
            f"{self.seconds:.0f} s{resumed}" if self.is_well else f"**{', '.join(self.problems)}**"
        )


class Kept:
    """The file of rows; the last one of a cell counts."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def rows(self) -> dict[str, Row]:
        """Name of a cell → what became of it."""
        if not self._path.exists():
            return {}
        lines = [json.loads(line) for line in self._path.read_text().splitlines()]
        rows = (Row(**{**line, "orphans": tuple(line["orphans"])}) for line in lines)
        return {row.name: row for row in rows}

    def add(self, row: Row) -> None:
        """Keep a row at once: the next cell may never end."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")


def table(rows: Iterable[Row], victims: Sequence[str], phases: Sequence[str]) -> str:
    """Victims by phases in Markdown, then each further row and each problem on a line."""
    by_name = {row.name: row for row in rows}
    lines = [f"| killed | {' | '.join(phases)} |", "|---" * (len(phases) + 1) + "|"]
    for victim in victims:
        found = [by_name.get(f"{victim}/{phase}") for phase in phases]
        lines.append(f"| {' | '.join([victim, *(row.brief if row else '' for row in found)])} |")
    lines.append("")
    for row in by_name.values():
        if row.victim not in victims:
            lines.append(f"- {row.victim}, {row.phase}: {row.brief}. {row.note}".rstrip())
        elif not row.is_well or row.note:
            lines.append(f"- {row.name}: {'; '.join([*row.problems, row.note, *row.orphans])}")
    return "\n".join(lines)
