"""What lies ready for a hospital: example settings, its service unit, the page that leads it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fedcondense.config.site import load_site
from fedcondense.flower.hops import _HOPS
from fedcondense.site.site_toml import site_toml

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "sites" / "example"
UNIT = EXAMPLE / "fedcondense-site.service"
PAGE = (ROOT / "docs" / "how-to-join-a-study.md").read_text(encoding="utf-8")


def test_the_example_is_what_init_writes() -> None:
    text = (EXAMPLE / "site.toml").read_text(encoding="utf-8")

    assert text == site_toml("lakeside", seed=20261121)
    assert load_site(EXAMPLE / "site.toml").name == "lakeside"


def test_every_table_that_is_commented_out_could_be_put_in(tmp_path: Path) -> None:
    text = site_toml("lakeside", seed=1)
    commented = re.compile(r"^# (\[\w+\]|\w+ = .*)$", re.MULTILINE)

    (tmp_path / "SITE.toml").write_text(commented.sub(r"\1", text))

    site = load_site(tmp_path / "SITE.toml")
    assert len(commented.findall(text)) >= 8
    assert site.ledger is not None
    assert site.declared is not None
    assert site.release.needs_approval


def test_the_page_explains_every_hop_of_check() -> None:
    for hop in _HOPS:
        assert f"| {hop} | " in PAGE


def directives() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


def test_the_service_can_change_nothing_but_its_state() -> None:
    unit = directives()

    assert unit["ProtectSystem"] == ["strict"]
    assert unit["StateDirectoryMode"] == ["0700"]
    assert "ReadWritePaths" not in unit
    for key in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices"):
        assert unit[key] == ["yes"]
    assert unit["CapabilityBoundingSet"] == unit["AmbientCapabilities"] == [""]


def test_the_service_is_not_started_again_after_settings_or_a_refusal() -> None:
    unit = directives()

    assert (unit["Type"], unit["Restart"]) == (["notify"], ["on-failure"])
    assert unit["RestartPreventExitStatus"] == ["2 3"]
    assert unit["KillMode"] == ["mixed"]  # the supervisor signs off before the others are killed


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_understands_the_unit_and_finds_little_exposed(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub(r"(?m)^ExecStart=.*", "ExecStart=/bin/true", UNIT.read_text()))

    verified = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    )
    exposed = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", unit],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (verified.returncode, verified.stderr) == (0, "")
    assert exposed.returncode == 0, exposed.stdout.splitlines()[-1]
