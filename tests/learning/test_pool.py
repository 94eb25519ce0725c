from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedcondense.errors import WorkerLost
from fedcondense.learning.pool import in_pool

PARENT = """
import os, sys, time
from fedcondense.learning.pool import in_pool

def begin():
    print(os.getpid(), flush=True)

if __name__ == "__main__":
    list(in_pool(begin, (), time.sleep, [300, 300], 2))
"""


def _die(*given):
    os._exit(1)


def test_a_process_that_is_killed_at_its_start_is_an_error_and_no_wait_for_ever():
    with pytest.raises(WorkerLost, match="a process that trained a classifier was killed"):
        list(in_pool(_die, ("x" * 100_000,), abs, [0], 1))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_parent_that_is_killed_leaves_no_worker_behind(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as parent:
        workers = [Path("/proc") / parent.stdout.readline().decode().strip() for _ in range(2)]

        parent.kill()

    until = time.monotonic() + 5
    while any(worker.exists() for worker in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(worker.exists() for worker in workers)
