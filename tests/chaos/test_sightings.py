"""What the kill matrix relies on: an orphan that hides its environment is seen all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from deployment_kit import Sightings, processes_of

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def test_a_process_that_names_no_folder_is_seen_after_its_parent_is_gone(tmp_path: Path) -> None:
    sightings = Sightings(tmp_path)
    script = "env -i sleep 60 & echo $!; wait"
    parent = subprocess.Popen(
        ["sh", "-c", script], env={**os.environ, "OWNER": str(tmp_path)}, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(0.1)  # until env has become sleep
    sightings.look()

    parent.kill()
    parent.wait()

    try:
        assert child not in processes_of(tmp_path)
        assert "sleep" in sightings.look()[child]
    finally:
        os.kill(child, signal.SIGKILL)
    parent.stdout.close()
