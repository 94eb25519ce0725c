"""The parent of a simulated federation: what it asks next, and how it fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from federation_kit import Repetition

from fedcondense.errors import FederationError
from fedcondense.files.storage import write_json
from fedcondense.flower import simulation
from fedcondense.flower.round_files import Intake, Plan
from fedcondense.flower.simulation import nothing, run_federation
from fedcondense.progress import silent

pytestmark = pytest.mark.e2e  # every test starts processes of its own

FC502 = "FC502"
ALL = Plan(1, ("site-1", "site-2", "site-3"), 2)


@pytest.fixture
def federation(repetition: Repetition) -> simulation._Federation:
    return simulation._Federation(repetition.path, 2, 0.0, silent, nothing)


def intake(*asked: str, stored: tuple[str, ...] = (), **codes: dict[str, str]) -> Intake:
    said = {**dict.fromkeys(stored), **codes.get("refused", {}), **codes.get("failed", {})}
    missing = {site: FC502 for site in ALL.ask if site not in said}
    refused, failed = codes.get("refused", {}), codes.get("failed", {})
    return Intake(1, dict.fromkeys(stored, "ab"), refused, failed, missing, asked)


def test_a_round_in_which_all_have_answered_is_the_last(
    federation: simulation._Federation,
) -> None:
    answered = intake(
        *ALL.ask, stored=("site-1",), refused={"site-2": "FC401"}, failed={"site-3": "FC202"}
    )

    assert federation._next(ALL, answered) is None


def test_who_was_never_asked_comes_before_whoever_took_flower_along(
    federation: simulation._Federation,
) -> None:
    plan = federation._next(ALL, intake("site-1", "site-2", stored=("site-2",)))

    assert plan is not None
    assert plan.ask == ("site-3", "site-1")


def test_a_site_whose_process_dies_twice_is_given_up(federation: simulation._Federation) -> None:
    died = intake(*ALL.ask, stored=("site-2", "site-3"))

    again = federation._next(ALL, died)
    given_up = federation._next(ALL, died)

    assert again is not None
    assert again.ask == ("site-1",)
    assert given_up is None


def test_codes_of_an_earlier_flower_run_go_into_the_next(
    federation: simulation._Federation,
) -> None:
    plan = federation._next(
        ALL, intake(*ALL.ask, refused={"site-1": "FC401"}, failed={"site-2": "FC202"})
    )

    assert plan is not None
    assert (plan.refused, plan.failed) == ({"site-1": "FC401"}, {"site-2": "FC202"})


def test_after_the_last_flower_run_who_is_missing_is_missing(
    federation: simulation._Federation,
) -> None:
    federation.runs = simulation.MOST_RUNS

    assert federation._next(ALL, intake("site-1", stored=("site-2",))) is None


def test_after_the_deadline_nobody_is_asked_again(federation: simulation._Federation) -> None:
    federation.deadline = 0

    assert federation._next(ALL, intake("site-1", stored=("site-2",))) is None


@pytest.mark.parametrize("command", [["false"], ["sleep", "300"]])
def test_a_superlink_that_never_becomes_ready_is_an_error_that_names_the_log(
    repetition: Repetition, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setattr(simulation, "_superlink_command", lambda port: command)
    monkeypatch.setattr(simulation, "LONGEST_START", 0.5)

    with pytest.raises(FederationError, match="SuperLink did not start") as failure:
        run_federation(repetition.path, cpus=2, conclude=lambda _: pytest.fail("concluded"))

    assert str(repetition.run.path / "flower" / "flower.log") in failure.value.hint


def test_a_flower_run_that_ends_before_anybody_answered_is_an_error(
    repetition: Repetition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulation, "_superlink_command", lambda port: ["sleep", "300"])
    monkeypatch.setattr(simulation, "_is_up", lambda port: True)
    monkeypatch.setattr(simulation._Federation, "_run_command", lambda self, actors: ["false"])

    with pytest.raises(FederationError, match="ended before the round did"):
        run_federation(repetition.path, cpus=2, conclude=lambda _: pytest.fail("concluded"))


def test_the_parent_concludes_while_flower_waits_and_an_old_intake_does_not_count(
    repetition: Repetition, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, ticks = repetition.run, []
    monkeypatch.setattr(simulation, "longest_telling", lambda run, round, sites: 0.5)
    write_json(run.intake(1), {"round": 1, "asked": [], "stored": {}, "refused": {}})
    done = '{"asked":[],"failed":{},"missing":{},"refused":{},"round":1,"stored":{}}'
    command = ["sh", "-c", f"sleep 1; echo '{done}' > {run.intake(1)}; sleep 300"]
    monkeypatch.setattr(simulation, "_superlink_command", lambda port: ["sleep", "300"])
    monkeypatch.setattr(simulation, "_is_up", lambda port: True)
    monkeypatch.setattr(simulation._Federation, "_run_command", lambda self, actors: command)

    times = run_federation(
        repetition.path,
        cpus=2,
        conclude=lambda _: write_json(run.done(1), {}),
        meanwhile=lambda: ticks.append(1),
    )

    assert run.done(1).exists()
    assert times.runs == 1
    assert times.total > 1
    assert len(ticks) >= 2


def test_children_get_no_settings_of_flower_or_ray_from_outside(
    federation: simulation._Federation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("FLWR_INTERNAL_GRPC_FLEET_API", "1")

    environment = federation._environment(tmp_path)

    assert "RAY_ADDRESS" not in environment
    assert "FLWR_INTERNAL_GRPC_FLEET_API" not in environment
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert environment["FLWR_HOME"] == str(federation.home.absolute())
    assert federation.home.stat().st_mode & 0o777 == 0o700


def test_a_command_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FederationError, match="flower-superlunk is not installed"):
        simulation.program("flower-superlunk")


def loads(module: str, heavy: str) -> bool:
    code = f"import {module}, sys; sys.exit({heavy!r} in sys.modules)"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 1


@pytest.mark.parametrize("module", ["server_app", "client_app", "messages", "simulation"])
def test_importing_a_shell_loads_no_torch(module: str) -> None:
    assert not loads(f"fedcondense.flower.{module}", "torch")


def test_importing_the_parents_part_loads_no_flower() -> None:
    assert not loads("fedcondense.flower.simulation", "flwr")


def test_the_check_for_torch_can_fail() -> None:
    assert loads("fedcondense.learning.networks", "torch")
