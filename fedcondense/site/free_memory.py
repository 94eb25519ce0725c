"""The memory that a condensation can still take on this machine, or in its container."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this program can still take, or None where the system does not say.

    That is what the machine has left, or less where a control group (of a container, of a service
    with MemoryMax) allows less; `root` is that of the file system.
    """
    match = re.search(r"^MemAvailable: +(\d+) kB$", _text(root / "proc/meminfo"), re.MULTILINE)
    of_machine = [int(match[1]) * 1024] if match else []
    return min([*of_machine, *_left_in_groups(root)], default=None)


def _left_in_groups(root: Path) -> Iterator[int]:
    """What each control group with a limit has left; one inside the other, of both versions."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, limit, used = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup/memory"
            limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder == top.parent:
                break
            most, now = _text(folder / limit).strip(), _text(folder / used).strip()
            if most.isdigit() and now.isdigit():
                yield max(0, int(most) - int(now) + _reclaimable(folder))


def _reclaimable(folder: Path) -> int:
    """Of the memory that a group uses, what is files read, and is given back at need."""
    found = dict(re.findall(r"^(\w+) (\d+)$", _text(folder / "memory.stat"), re.MULTILINE))
    return int(found.get("total_inactive_file") or found.get("inactive_file") or 0)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
