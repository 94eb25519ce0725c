"""What happened in a run, one JSON object a line: codes, counts and names of sites only."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from fedcondense.files.storage import canonical_json
from fedcondense.server.run_directory import RunDirectory


def note(run: RunDirectory, event: str, **values: str | int) -> None:
    """Append one line; `event` is a word such as `asked` or `concluded`."""
    line = canonical_json({"event": event, "time": int(time.time()), **values}) + b"\n"
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    descriptor = os.open(run.events_path, flags, 0o644)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def events(run: RunDirectory) -> list[dict[str, Any]]:
    """All events so far, oldest first; a line that was cut off by a crash is left out."""
    if not run.events_path.exists():
        return []
    lines = run.events_path.read_bytes().splitlines()
    return [line for line in map(_parsed, lines) if line]


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except ValueError:
        return {}
