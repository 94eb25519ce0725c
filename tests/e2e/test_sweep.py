"""A sweep of two cells in real processes, shared by two commands at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

COMMAND = Path(sys.executable).parent / "fedcondense-simulate"
LONGEST = 420  # seconds; a run takes 40
SCENARIO = """
name = "smallest"
random_draws = 2
[images]
kind = "phantoms"
images_per_class = 150
[image]
size = 16
[network]
width = 8
depth = 2
[distill]
method = "idm"
iterations = 4
[evaluation]
networks = 2
steps = 10
resamples = 100
[partition]
kind = "even"
sites = 2
[site]
min_patients_per_class = 2
[sweep]
images_per_class = [1, 2]
[[reference]]
label = "IDM"
value = 58.6
source = "Zhao et al. 2023, Table 1"
cell = { images_per_class = 2, distill = { method = "idm" } }
"""


def begin(scenario: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(COMMAND), str(scenario), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_commands_share_a_sweep_and_the_next_one_shows_its_scores(tmp_path):
    scenario, out = tmp_path / "smallest.toml", tmp_path / "run"
    scenario.write_text(SCENARIO)

    both = [begin(scenario, out) for _ in range(2)]
    told = [process.communicate(timeout=LONGEST) for process in both]

    assert [process.returncode for process in both] == [0, 0], told
    begun = [line for _, text in told for line in text.splitlines() if line.startswith("cell ")]
    assert [line.split(":")[0] for line in sorted(begun)] == ["cell 1 of 2", "cell 2 of 2"]
    report = json.loads((out / "report.json").read_text())
    assert [cell["state"] for cell in report["cells"]] == ["done", "done"]
    first, second = (cell["results"]["scores"] for cell in report["cells"])
    assert first["ceiling"] == second["ceiling"]
    assert "58.6" in (out / "report.html").read_text()
    for cell in report["cells"]:
        assert (out / "cells" / cell["name"] / "report.html").exists()

    again = begin(scenario, out)
    shown, _ = again.communicate(timeout=LONGEST)

    assert again.returncode == 0
    assert shown.startswith("This sweep is done; its scores:")
