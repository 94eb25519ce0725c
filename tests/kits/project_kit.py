"""What pyproject.toml says of the project."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def extra_of(name: str) -> str:
    """The one requirement of an optional dependency: nobody owns the project's name elsewhere."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [requirement] = project["optional-dependencies"][name]
    assert isinstance(requirement, str)
    return requirement
