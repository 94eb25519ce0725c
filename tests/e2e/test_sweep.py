"""A sweep of two cells in real processes, shared by two commands at once."""

from __future__ import annotations

import pytest
from simulate_kit import LONGEST, begin, report, write_scenario

pytestmark = pytest.mark.e2e

REFERENCE = {
    "label": "IDM",
    "value": 58.6,
    "source": "Zhao et al. 2023, Table 1",
    "cell": {"images_per_class": 2, "distill": {"method": "idm"}},
}


def test_two_commands_share_a_sweep_and_the_next_one_shows_its_scores(tmp_path):
    sweep = {"images_per_class": [1, 2]}
    scenario = write_scenario(tmp_path, sweep=sweep, reference=[REFERENCE])
    out = tmp_path / "run"

    both = [begin(scenario, out) for _ in range(2)]
    told = [process.communicate(timeout=LONGEST) for process in both]

    assert [process.returncode for process in both] == [0, 0], told
    begun = [line for _, text in told for line in text.splitlines() if line.startswith("cell ")]
    assert [line.split(":")[0] for line in sorted(begun)] == ["cell 1 of 2", "cell 2 of 2"]
    cells = report(out)["cells"]
    assert [cell["state"] for cell in cells] == ["done", "done"]
    first, second = (cell["results"]["scores"] for cell in cells)
    assert first["ceiling"] == second["ceiling"]
    assert "58.6" in (out / "report.html").read_text()
    for cell in cells:
        assert (out / "cells" / cell["name"] / "report.html").exists()

    again = begin(scenario, out)
    shown, _ = again.communicate(timeout=LONGEST)

    assert again.returncode == 0
    assert shown.startswith("This sweep is done; its scores:")
