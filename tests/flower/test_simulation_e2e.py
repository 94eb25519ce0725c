"""Flower's real engine, with a stand-in for a site's condensation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import federation_kit
import pytest
from federation_kit import PATIENT, Repetition

from fedcondense.files.storage import write_json
from fedcondense.flower.round_files import read_intake
from fedcondense.flower.simulation import SIMULATION, run_federation
from fedcondense.progress import Step

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("stand_in")]


def engine_of(repetition: Repetition) -> list[str]:
    """Command lines of living processes that play this repetition."""
    wanted, found = f"{SIMULATION}={repetition.path}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_text(errors="replace").replace("\0", " "))
        except OSError:
            continue
    return found


def wait_until(condition: Callable[[], object], seconds: float = 90.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.1)


def test_a_round_survives_the_death_of_a_sites_process(repetition: Repetition) -> None:
    repetition.behave("site-1", seconds=4)
    repetition.behave("site-2", seconds=4)
    repetition.behave("site-3", raises="ValueError")
    steps: list[Step] = []

    def kill_the_second_once() -> None:
        if repetition.starts("site-1") and len(starts := repetition.starts("site-2")) == 1:
            os.kill(starts[0], signal.SIGKILL)
            repetition.behave("site-2")
            (repetition.site("site-2") / "starts.log").write_text(f"{starts[0]}\n0\n")

    def conclude(_: int) -> None:
        assert engine_of(repetition)
        write_json(repetition.run.done(1), {})

    times = run_federation(
        repetition.path,
        cpus=2,
        conclude=conclude,
        watch=steps.append,
        meanwhile=kill_the_second_once,
    )

    intake = read_intake(repetition.run.intake(1))
    assert (sorted(intake.stored), intake.missing) == (["site-1", "site-2"], {})
    assert intake.failed == {"site-3": "FC901"}
    assert (times.runs, len(repetition.starts("site-1"))) == (2, 1)
    assert times.start_up > 0 < times.exchange
    assert (steps[-1].done, steps[-1].total) == (2, 3)
    assert engine_of(repetition) == []
    said = [path for path in repetition.run.path.rglob("*") if path.is_file()]
    assert not [path for path in said if PATIENT.encode() in path.read_bytes()]
    assert PATIENT in (repetition.site("site-3") / "errors.log").read_text()


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_its_parent(repetition: Repetition, blow: signal.Signals) -> None:
    for site in repetition.names:
        repetition.behave(site, seconds=300)
    command = [sys.executable, federation_kit.__file__, str(repetition.path)]
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join([os.environ["PYTHONPATH"], package])
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as parent:
        wait_until(lambda: repetition.starts("site-1"))

        parent.send_signal(blow)
        parent.wait(timeout=10)

    wait_until(lambda: not engine_of(repetition), seconds=10)
    assert engine_of(repetition) == []
