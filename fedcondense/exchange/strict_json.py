"""The strict reader of canonical JSON: what others wrote is read in one way or not at all.

The standard reader keeps the last of two equal keys and accepts NaN; here both are errors, as is
any text that would not be written again as the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from fedcondense.files.storage import canonical_json

DEEPEST = 6  # nested objects and arrays
LARGEST_INTEGER = 2**53  # every reader has it exactly, also one whose numbers are doubles
# Also a string without an end is taken whole: searching on inside it would be quadratic.
_STRING = re.compile(rb'"(?:[^"\\]|\\.?)*+"?', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


def read_strictly(data: bytes) -> dict[str, Any]:
    """The object that `data` holds: ASCII, canonical, no float, at most `DEEPEST` levels.

    The caller has bounded the length of `data`.

    Raises:
        ValueError: `data` is anything else.
    """
    if _depth(data) > DEEPEST:
        raise ValueError("too deep")
    value = json.loads(
        data.decode("ascii"),
        object_pairs_hook=_without_duplicates,
        parse_constant=_refuse,
        parse_float=_refuse,
        parse_int=_bounded,
    )
    if not isinstance(value, dict) or canonical_json(value) != data:
        raise ValueError("not canonical")
    return value


def has_shape(value: object, shape: Mapping[str, type | tuple[type, ...]]) -> bool:
    """Whether `value` is an object of exactly these keys, each of exactly (one of) these types."""
    return (
        isinstance(value, dict)
        and value.keys() == shape.keys()
        and all(_is_exactly(value[key], kind) for key, kind in shape.items())
    )


def _is_exactly(value: object, kind: type | tuple[type, ...]) -> bool:
    """Unlike `isinstance`: True is no integer here."""
    return type(value) in (kind if isinstance(kind, tuple) else (kind,))


def _depth(data: bytes) -> int:
    """Counted before parsing, so that no nesting reaches the parser's recursion."""
    depth = deepest = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", data)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice")
    return value


def _bounded(digits: str) -> int:
    if len(digits) > 17 or abs(int(digits)) > LARGEST_INTEGER:
        raise ValueError("an integer out of range")
    return int(digits)


def _refuse(text: str) -> NoReturn:
    raise ValueError("not an integer")
