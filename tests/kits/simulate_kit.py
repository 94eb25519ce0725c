"""`fedcondense-simulate` as a process, and the smallest scenario that is still all of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import tomli_w

COMMAND = Path(sys.executable).parent / "fedcondense-simulate"
LONGEST = 420  # seconds; most runs take 20
SMALLEST: dict[str, Any] = {
    "name": "smallest",
    "images_per_class": 2,
    "random_draws": 2,
    "images": {"kind": "phantoms", "images_per_class": 150},
    "image": {"size": 16},
    "network": {"width": 8, "depth": 2},
    "distill": {"method": "idm", "iterations": 4},
    "evaluation": {"networks": 2, "steps": 10, "resamples": 100},
    "partition": {"kind": "even", "sites": 2},
    "site": {"min_patients_per_class": 2},
}


def write_scenario(folder: Path, **changes: Any) -> Path:
    """The smallest scenario as a file; a change of a table leaves its other keys."""
    tables = {key: SMALLEST[key] | value for key, value in changes.items() if key in TABLES}
    path = folder / "smallest.toml"
    path.write_text(tomli_w.dumps(SMALLEST | changes | tables), encoding="utf-8")
    return path


TABLES = {key for key, value in SMALLEST.items() if isinstance(value, dict)}


def simulate(scenario: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Play it to its end."""
    command = [str(COMMAND), str(scenario), "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)


def begin(scenario: Path, out: Path) -> subprocess.Popen[str]:
    """Play it in a session of its own while the test goes on."""
    return subprocess.Popen(
        [str(COMMAND), str(scenario), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def report(out: Path) -> dict[str, Any]:
    """The values of the run's `report.json`."""
    values: dict[str, Any] = json.loads((out / "report.json").read_text())
    return values
