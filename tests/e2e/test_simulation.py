"""The whole federation in real processes, at the smallest size that is still all of it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from simulate_kit import LONGEST, begin, report, simulate, write_scenario

pytestmark = pytest.mark.e2e

OPTIONAL = {"architectures": ["alexnet"], "cross_networks": 1, "consistency": [1, 2]}


def wait_for(what, seconds: float = LONGEST) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.05)


def journals(out: Path) -> list[Path]:
    return list(out.glob("seed-0/sites/*/runs/*/round-001/log.jsonl"))


def condensing(out: Path) -> bool:
    """Whether a site is in the midst of its iterations."""
    return any('"condensing"' in path.read_text() for path in journals(out))


def processes_of(out: Path) -> list[int]:
    """Processes that were started for the run in `out`, by the environment they inherited."""
    wanted = f"FEDCONDENSE_SIMULATION={out / 'seed-0'}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue  # it ended while we looked
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    result = simulate(write_scenario(folder, **OPTIONAL), folder / "run")
    assert result.returncode == 0, result.stderr
    return folder


def test_the_run_directory_holds_report_set_and_classifier(undisturbed):
    out = undisturbed / "run"

    found = report(out)

    server = out / "seed-0/server/round-001"
    for name in ("global", "ceiling", "random_real", "random_real_expanded"):
        assert set(found["scores"][name]["balanced_accuracy"]) == {"mean", "sd", "low", "high"}
    assert set(found["seconds"]) == {"start_up", "condense", "federation", "evaluation", "total"}
    assert [site["name"] for site in found["sites"]] == ["site-1", "site-2"]
    assert len(list((server / "global/png").glob("*.png"))) == found["global_set"]["images"] == 16
    assert (server / "classifier/weights.safetensors").exists()
    assert "Not for clinical use" in (server / "classifier/README.md").read_text()
    assert "<script" not in (out / "report.html").read_text()


def test_other_networks_and_the_consistency_ratio_are_reported_where_they_are_asked_for(
    undisturbed,
):
    found = report(undisturbed / "run")

    assert set(found["cross_architecture"]["tested_with"]) == {"convnet", "alexnet"}
    sets = found["cross_architecture"]["tested_with"]["alexnet"]["sets"]
    assert {name: scored["networks"] for name, scored in sets.items()} == {
        "global": 1, "ceiling": 1, "random_real": 1, "random_real_expanded": 1
    }  # fmt: skip
    assert found["consistency"]["nearest"] == [1, 2]
    assert found["consistency"]["views"] == 4 * found["global_set"]["images"]
    page = (undisturbed / "run/report.html").read_text()
    assert "Tested with other networks" in page
    assert "Do synthetic images lie among real ones of their class?" in page


def test_the_same_scenario_gives_the_same_set_elsewhere(undisturbed, tmp_path):
    again = simulate(undisturbed / "run" / "scenario.toml", tmp_path / "again")

    assert again.returncode == 0, again.stderr
    assert report(tmp_path / "again")["global_set"] == report(undisturbed / "run")["global_set"]


def test_run_again_it_says_that_it_is_done_and_prints_the_scores(undisturbed):
    again = simulate(undisturbed / "smallest.toml", undisturbed / "run")

    assert again.returncode == 0
    assert again.stdout.startswith("This run is done; its scores:")
    assert "global synthetic set" in again.stdout


def test_nothing_of_a_site_stands_at_the_server_but_what_was_sealed(undisturbed):
    out = undisturbed / "run"
    texts = [path.read_bytes() for path in (out / "seed-0/server").rglob("*") if path.is_file()]

    assert not any(b"phantom-" in text for text in texts)  # patients' names begin so
    assert not any(b"images.npz" in text for text in texts)
    assert not list((out / "seed-0/server/round-001").glob("opened/*"))


def test_ctrl_c_ends_everything_and_the_same_command_ends_with_the_same_set(tmp_path, undisturbed):
    scenario, out = write_scenario(tmp_path), tmp_path / "run"
    first = begin(scenario, out)
    wait_for(lambda: condensing(out) or first.poll() is not None)

    first.send_signal(signal.SIGINT)
    _, stderr = first.communicate(timeout=60)

    assert first.returncode == 1
    assert stderr.splitlines()[-2:] == [
        "fedcondense-simulate: error FC103: stopped by the operator",
        "fedcondense-simulate: hint: the same command goes on where it was",
    ]
    assert "Traceback" not in stderr
    wait_for(lambda: not processes_of(out), 20)
    assert not (out / "report.html").exists()

    second = simulate(scenario, out)

    assert second.returncode == 0, second.stderr
    assert report(out)["global_set"] == report(undisturbed / "run")["global_set"]


def test_a_site_whose_process_is_killed_is_asked_again_or_named(tmp_path, undisturbed):
    scenario, out = write_scenario(tmp_path, distill={"iterations": 400}), tmp_path / "run"
    run = begin(scenario, out)
    wait_for(lambda: condensing(out) or run.poll() is not None)
    [victim, *_] = [pid for pid in processes_of(out) if _is_a_client(pid)]

    os.kill(victim, signal.SIGKILL)
    _, stderr = run.communicate(timeout=LONGEST)

    assert run.returncode == 0, stderr
    found = report(out)
    answered = {site["name"] for site in found["sites"]}
    named = {site["name"] for site in found["failed_sites"]}
    assert answered | named == {"site-1", "site-2"}
    assert answered
    wait_for(lambda: not processes_of(out), 20)


def _is_a_client(pid: int) -> bool:
    """Ray names the processes of its actors."""
    return b"ClientAppActor" in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_the_gate_refuses_a_real_start_and_nothing_is_sealed(tmp_path):
    out = tmp_path / "run"

    result = simulate(write_scenario(tmp_path, distill={"start": "real"}), out)

    assert result.returncode == 3
    assert result.stderr.splitlines()[-2] == (
        "fedcondense-simulate: error FC401: 0 of 2 sites contributed, the quorum is 1: "
        "site-1 FC401, site-2 FC401"
    )
    assert not list(out.rglob("*.sealed"))


def test_sites_that_are_all_too_small_are_named_and_nothing_is_opened(tmp_path):
    scenario, out = write_scenario(tmp_path), tmp_path / "run"
    text = scenario.read_text().replace(
        "min_patients_per_class = 2", "min_patients_per_class = 900"
    )
    scenario.write_text(text)

    result = simulate(scenario, out)

    assert result.returncode == 1
    assert result.stderr.splitlines()[-2:] == [
        "fedcondense-simulate: error FC501: 0 of 2 sites contributed, the quorum is 1: "
        "site-1 FC203, site-2 FC203",
        "fedcondense-simulate: hint: each site's errors.log says why; the codes are in "
        "docs/ref-errors.md",
    ]
    assert not (out / "report.html").exists()


def test_a_study_only_scenario_may_study_a_real_start_and_says_so(tmp_path):
    out = tmp_path / "run"
    scenario = write_scenario(tmp_path, distill={"start": "real"}, release="study-only")

    result = simulate(scenario, out)

    assert result.returncode == 0, result.stderr
    found = report(out)
    assert found["release"] == {"mode": "study-only", "purpose": "simulation"}
    assert all(site["gate"]["problems"] for site in found["sites"])
