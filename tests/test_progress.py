from __future__ import annotations

import subprocess
import sys

ASK = "from fedcondense.progress import peak_megabytes; print(peak_megabytes())"
HOLD = "held = bytearray(b'x') * 200_000_000; del held; "


def told(program: str) -> float:
    """Peak memory that a fresh process tells."""
    return float(subprocess.check_output([sys.executable, "-c", program]))


def test_the_peak_stays_when_what_was_held_is_let_go():
    assert 200 < told(HOLD + ASK) < 300


def test_a_process_does_not_inherit_the_peak_of_the_one_that_started_it():
    program = "held = bytearray(b'x') * 200_000_000; import subprocess, sys; print(float("
    program += f"subprocess.check_output([sys.executable, '-c', {ASK!r}])))"

    assert told(program) < 100
