"""The service units of server and sites: hardened alike, each with its own way to end."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fedcondense.cli.terminal import STOPPED

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "server" / "fedcondense-server.service"
SITE = ROOT / "sites" / "example" / "fedcondense-site.service"

either = pytest.mark.parametrize("unit", [SERVER, SITE], ids=["server", "site"])


def directives(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


@either
def test_the_service_can_change_nothing_but_its_state(unit: Path) -> None:
    found = directives(unit)

    assert found["ProtectSystem"] == ["strict"]
    assert found["StateDirectoryMode"] == ["0700"]
    assert "ReadWritePaths" not in found
    for key in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices"):
        assert found[key] == ["yes"]
    assert found["CapabilityBoundingSet"] == found["AmbientCapabilities"] == [""]


@either
def test_the_service_is_not_started_again_after_settings_or_a_refusal(unit: Path) -> None:
    found = directives(unit)

    assert found["Type"] == ["notify"]
    assert found["RestartPreventExitStatus"] == ["2 3"]


def test_connections_of_strangers_do_not_use_up_those_of_the_sites() -> None:
    assert directives(SERVER)["LimitNOFILE"] == ["65536"]


def test_a_server_goes_on_after_a_kill_and_not_after_a_code_of_its_own() -> None:
    assert directives(SERVER)["Restart"] == ["on-abnormal"]


def test_a_site_goes_on_after_a_failure_and_signs_off_before_its_processes_are_killed() -> None:
    found = directives(SITE)

    assert found["Restart"] == ["on-failure"]
    assert found["KillMode"] == ["mixed"]  # the supervisor alone is told to end


@either
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_understands_the_unit_and_finds_little_exposed(unit: Path, tmp_path: Path) -> None:
    here = tmp_path / unit.name
    here.write_text(re.sub(r"(?m)^ExecStart=.*", "ExecStart=/bin/true", unit.read_text()))

    verified = subprocess.run(
        ["systemd-analyze", "verify", here], capture_output=True, text=True, check=False
    )
    exposed = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", here],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (verified.returncode, verified.stderr) == (0, "")
    assert exposed.returncode == 0, exposed.stdout.splitlines()[-1]


@either
def test_a_stop_is_no_failure_of_the_service(unit: Path) -> None:
    assert directives(unit)["SuccessExitStatus"] == [str(int(STOPPED))]


@either
def test_what_a_gpu_needs_is_taken_out_by_the_two_lines_that_the_unit_names(unit: Path) -> None:
    """`ProtectClock` brings `DeviceAllow=char-rtc` along, which shuts out all other devices."""
    text = unit.read_text()

    after = text.partition("takes the next two lines out")[2].splitlines()
    following = [line for line in after[1:] if not line.startswith("#")]

    assert following[:2] == ["PrivateDevices=yes", "ProtectClock=yes"]
    assert "DeviceAllow" not in directives(unit)
    assert "DevicePolicy" not in directives(unit)
