"""Two rounds in real processes: deployed, and played on one machine."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from deployment_kit import LONGEST, make_consortium, processes_of, serve, wait_for
from simulate_kit import report, simulate, write_scenario

from fedcondense.flower.round_files import read_told
from fedcondense.server.aggregate import read_global_set
from fedcondense.server.report import read_report

pytestmark = pytest.mark.e2e


def test_a_deployed_study_of_two_rounds_is_played_to_its_end_and_the_sites_are_told(
    tmp_path: Path,
) -> None:
    consortium = make_consortium(tmp_path / "office", sites=2, quorum=2, rounds=2)
    server = serve(consortium.office)
    try:
        with contextlib.ExitStack() as stack:
            for site in consortium.sites.values():
                stack.enter_context(site.online())
            _, said = server.communicate(timeout=LONGEST)
    finally:
        if server.poll() is None:
            server.kill()
        wait_for(lambda: not processes_of(consortium.office.config.runs), 60)

    assert server.returncode == 0, said + consortium.log()
    current = consortium.current()
    assert current is not None
    assert [(of.round, of.sites) for of in read_report(current.run).rounds] == [
        (1, ("site-1", "site-2")),
        (2, ("site-1", "site-2")),
    ]
    assert read_told(current.run.told(2)).sites == ("site-1", "site-2")
    for number in (1, 2):
        union = read_global_set(current.run.global_set(number))
        for site in consortium.sites.values():
            [kept] = site.folder.glob(f"runs/*/round-{number:03d}/global/result.json")
            assert json.loads(kept.read_bytes())["result"]["set_sha256"] == union.sha256


def test_a_scenario_of_two_rounds_reports_both_and_gives_the_same_sets_again(
    tmp_path: Path,
) -> None:
    scenario = write_scenario(tmp_path, rounds=2)
    reports = []
    for name in ("one", "two"):
        played = simulate(scenario, tmp_path / name)
        assert played.returncode == 0, played.stderr
        reports.append(report(tmp_path / name))

    one, two = (each["repetitions"][0]["rounds"] for each in reports)
    assert [of["round"] for of in one] == [1, 2]
    assert one[1]["global_set"] == reports[0]["global_set"]
    assert [of["global_set"] for of in one] == [of["global_set"] for of in two]
    assert one[0]["global_set"] != one[1]["global_set"]
    assert "Round by round" in (tmp_path / "one" / "report.html").read_text()
