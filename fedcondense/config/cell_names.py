"""What the cells of a sweep are called: for readers, and as folders."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedcondense.config.coresets import Coreset
from fedcondense.config.matching import Idm, Queue
from fedcondense.config.methods import PRESETS, Method
from fedcondense.config.sweep import TOGETHER, Axis

LONGEST_NAME = 80  # characters of a folder, before the digest
_IN_METHOD_NAME = {"method", "preset", "start", "queue"}


def method_name(method: Method, mode: str = "none") -> str:
    """Method, preset unless it is the first, whose networks IDM matches against, and start.

    With differential privacy a method is another algorithm, so the mode is part of its name.
    """
    preset = "" if method.preset == PRESETS[method.method][0] else f" {method.preset}"
    words = [method.method + preset + private_suffix(mode)]
    if isinstance(method, Idm) and method.queue is Queue.EXPERTS:
        words.append("expert queue")
    is_coreset = isinstance(method, Coreset)
    words.append("real images" if is_coreset else f"{method.start.value} start")
    return ", ".join(words)


def private_suffix(mode: str) -> str:
    """What follows a method's name where its study asks for differential privacy."""
    return "" if mode == "none" else f" ({mode})"


def headings(axes: Sequence[Axis]) -> tuple[str, ...]:
    """What the columns of the axes are called: the last part of a key that no other axis has."""
    return tuple(_heading(axis, axes) for axis in axes)


def choice_name(axis: Axis, value: Any, method: Method, mode: str = "none") -> str:
    """What a reader calls one value of an axis; `method` and privacy `mode` are the cell's."""
    if axis.path == ("distill",):
        alike = [table for table in axis.values if table.get("method") == method.method]
        shown = _telling(alike, value, hidden=_IN_METHOD_NAME)
        return ", ".join([method_name(method, mode), *shown])
    if axis.path == ("privacy",):
        shown = [f"{k} {_text(v)}" for k, v in _leaves(value) if k != "mode"]
        return ", ".join([str(value.get("mode", "none")), *shown])
    if not isinstance(value, dict):
        return _text(value)
    tables = list(axis.values)
    return ", ".join(_telling(tables, value) or [f"{k} {_text(v)}" for k, v in _leaves(value)])


def folder_name(axes: Sequence[Axis], names: Sequence[str], digest: str) -> str:
    """A name of a-z, 0-9, dots, hyphens and underscores, told apart by the digest's beginning."""
    parts = [
        name if axis.path[0] in ("distill", TOGETHER) else f"{axis.path[-1]}-{name}"
        for axis, name in zip(axes, names, strict=True)
    ]
    return f"{'_'.join(map(_slug, parts))[:LONGEST_NAME]}-{digest[:8]}"


def _heading(axis: Axis, axes: Sequence[Axis]) -> str:
    if axis.path == (TOGETHER,):
        return "setting"
    if axis.path in (("distill",), ("distill", "method")):
        return "method"
    last = axis.path[-1]
    alone = sum(other.path[-1] == last for other in axes) == 1
    return last if alone and last != "method" else axis.key


def _telling(
    tables: Sequence[Mapping[str, Any]],
    table: Mapping[str, Any],
    hidden: set[str] | frozenset[str] = frozenset(),
) -> list[str]:
    """The entries of `table` that not all `tables` have."""
    others = [dict(_leaves(other)) for other in tables]
    return [
        f"{key} {_text(value)}"
        for key, value in _leaves(table)
        if key not in hidden and any(other.get(key) != value for other in others)
    ]


def _leaves(table: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return " ".join(map(_text, value)) or "none"
    return str(value)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-.") or "x"
