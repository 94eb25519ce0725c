from __future__ import annotations

import subprocess
import sys

from fedcondense.progress import peak_megabytes

ASK = "from fedcondense.progress import peak_megabytes; print(peak_megabytes())"


def test_peak_memory_grows_with_what_is_held_and_does_not_fall():
    before = peak_megabytes()

    held = bytearray(300_000_000)
    held[::4096] = b"x" * len(held[::4096])
    after = peak_megabytes()
    del held

    assert after > before + 200 or before > 300
    assert peak_megabytes() >= after


def test_a_process_does_not_inherit_the_peak_of_the_one_that_started_it():
    held = bytearray(200_000_000)
    held[::4096] = b"x" * len(held[::4096])

    child = float(subprocess.check_output([sys.executable, "-c", ASK]))

    assert child < 100
