"""What a condensing site reports, one JSON line a step; it stays at the site."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from fedcondense.progress import Step, peak_megabytes

JOURNAL = "log.jsonl"  # in the folder of a round
LONGEST_LINE = 4096
FRAME = {"stage", "done", "total", "seconds", "megabytes"}  # what is not a figure of the step


class Journal:
    """Appends every step to a file, with seconds since the first and peak memory."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _cut_half_line(path)
        self._path = path
        self._began = time.monotonic()

    def __call__(self, step: Step) -> None:
        """Append one line; a `Watch`."""
        line = {
            "stage": step.stage,
            "done": step.done,
            "total": step.total,
            "seconds": round(time.monotonic() - self._began, 3),
            "megabytes": round(peak_megabytes(), 1),
            **step.figures,
        }
        with self._path.open("a", encoding="ascii") as file:
            file.write(json.dumps(line) + "\n")


def last_step(path: Path) -> Step | None:
    """The newest whole line of a journal, without reading the rest."""
    try:
        with path.open("rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - LONGEST_LINE)
            file.seek(start)
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return None
    whole = lines[1 if start else 0 : -1]
    return _step(json.loads(whole[-1])) if whole else None


def _cut_half_line(path: Path) -> None:
    """What a killed process left unfinished would spoil the line after it."""
    if path.exists():
        whole, newline, half = path.read_bytes().rpartition(b"\n")
        if half:
            os.truncate(path, len(whole + newline))


def _step(line: dict[str, Any]) -> Step:
    figures = {name: value for name, value in line.items() if name not in FRAME}
    return Step(line["stage"], line["done"], line["total"], figures)


def read_journal(path: Path) -> list[Step]:
    """All whole lines of a journal, oldest first; none where it was never begun."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="ascii").split("\n")[:-1]
    return [_step(json.loads(line)) for line in lines]
