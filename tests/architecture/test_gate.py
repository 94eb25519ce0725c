"""The gate has no back door: `Released` is made in one place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import fedcondense

ROOT = Path(fedcondense.__file__).parent
GATE = ROOT / "privacy" / "release.py"


def makers_of_released(source: str) -> list[int]:
    """Lines that make a `Released`, rename it, derive from it, or could copy one with changes."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name(id="Released") | ast.Attribute(attr="Released")):
                lines.append(node.lineno)
            case ast.ClassDef(bases=bases) if any(_names_released(base) for base in bases):
                lines.append(node.lineno)
            case ast.ImportFrom(names=names) if any(
                name.name == "Released" and name.asname for name in names
            ):
                lines.append(node.lineno)
            case ast.Assign(value=value) if _names_released(value):
                lines.append(node.lineno)
            case ast.Attribute(attr="__new__" | "__replace__" | "__setattr__"):
                lines.append(node.lineno)
            case ast.Call(func=ast.Name(id="replace"), args=[first, *_]) if _is_released(first):
                lines.append(node.lineno)
    return lines


def _names_released(node: ast.AST) -> bool:
    return (isinstance(node, ast.Name) and node.id == "Released") or (
        isinstance(node, ast.Attribute) and node.attr == "Released"
    )


def _is_released(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and "released" in node.id.lower()


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.stem)
def test_only_the_gate_makes_a_released(path):
    lines = makers_of_released(path.read_text(encoding="utf-8"))

    assert bool(lines) == (path == GATE), f"{path.relative_to(ROOT)}: lines {lines}"


@pytest.mark.parametrize(
    "source",
    [
        "Released(payload, record, 'release')",
        "contribution.Released(payload, record, 'release')",
        "from fedcondense.exchange.contribution import Released as Free",
        "make = Released",
        "class Free(Released): pass",
        "object.__new__(kind)",
        "object.__setattr__(released, 'payload', other)",
        "replace(released, payload=other)",
    ],
)
def test_each_way_around_the_gate_would_be_noticed(source):
    assert makers_of_released(source)
