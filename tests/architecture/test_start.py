"""What routes bytes, and every command until it computes, starts without the heavy packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fedcondense

ROOT = Path(fedcondense.__file__).parent
HEAVY = ("torch", "torchvision", "opacus", "ray", "matplotlib", "pydicom")
LIGHT = [
    "fedcondense",
    "fedcondense.errors",
    "fedcondense.files.storage",
    "fedcondense.progress",
    *(
        f"fedcondense.{wing}.{path.stem}"
        for wing in ("config", "exchange")
        for path in sorted((ROOT / wing).glob("*.py"))
        if path.stem != "__init__"
    ),
    "fedcondense.server.intake",
    "fedcondense.server.run_directory",
    "fedcondense.cli.simulate",
    "fedcondense.flower.server_app",
    "fedcondense.cli.server",
    "fedcondense.flower.deployment",
    "fedcondense.flower.server_status",
    "fedcondense.flower.superlink_process",
    "fedcondense.server.current_run",
    "fedcondense.server.enrolment",
    "fedcondense.server.foundation",
    "fedcondense.flower.hops",
    "fedcondense.flower.installed_app",
    "fedcondense.flower.site_status",
    "fedcondense.flower.supernode",
    "fedcondense.site.doctor",
    "fedcondense.site.enrolment",
]
IMPORT_EACH = """
import importlib, json, sys
names, heavy = json.loads(sys.argv[1])
guilty = {}
for name in names:
    importlib.import_module(name)
    for package in heavy:
        if package in sys.modules:
            guilty.setdefault(package, name)
print(json.dumps(guilty))
"""
CALL_SIMULATE = """
import atexit, json, sys
heavy, sys.argv = json.loads(sys.argv[1]), ["fedcondense-simulate", *sys.argv[2:]]
atexit.register(lambda: print("loaded", [name for name in heavy if name in sys.modules]))
from fedcondense.cli.simulate import main
main()
"""
IMPORT_WITHOUT = """
import importlib, json, sys
names, blocked = json.loads(sys.argv[1])
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ImportError(f"{name} is not there")
sys.meta_path.insert(0, Blocker())
for name in names:
    importlib.import_module(name)
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def who_loads(names: list[str], heavy: tuple[str, ...]) -> dict[str, str]:
    """By heavy package: the first of `names` after whose import it was there."""
    done = python(IMPORT_EACH, json.dumps([names, heavy]))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def simulate(*arguments: str, heavy: tuple[str, ...] = HEAVY) -> tuple[int, str, str]:
    """Exit code of the command, its last line on standard output, its standard error."""
    done = python(CALL_SIMULATE, json.dumps(heavy), *arguments)
    return done.returncode, done.stdout.splitlines()[-1], done.stderr


def test_what_routes_bytes_loads_nothing_heavy():
    assert who_loads(LIGHT, HEAVY) == {}


def test_a_heavy_import_would_be_noticed():
    assert who_loads(["fedcondense.errors", "jaxtyping"], ("json", "jaxtyping")) == {
        "json": "fedcondense.errors",
        "jaxtyping": "jaxtyping",
    }


@pytest.mark.parametrize("arguments", [["--help"], []], ids=["help", "nothing"])
def test_help_loads_nothing_heavy(arguments):
    _, loaded, _ = simulate(*arguments)

    assert loaded == "loaded []"


def test_a_settings_error_loads_nothing_heavy(tmp_path):
    scenario = tmp_path / "wrong.toml"
    scenario.write_text('name = "wrong"\niterations = 3\n')

    code, loaded, said = simulate(str(scenario))

    assert (code, loaded) == (2, "loaded []")
    assert said == (
        "fedcondense-simulate: error FC101: wrong.toml: distill: Field required; "
        "iterations: Extra inputs are not permitted\n"
        "fedcondense-simulate: hint: every key is described in docs/ref-settings.md\n"
    )


def test_a_heavy_command_would_be_noticed():
    _, loaded, _ = simulate("--help", heavy=("typer", "torch"))

    assert loaded == "loaded ['typer']"


def test_help_takes_less_than_half_a_second_of_a_processor():
    """Of a processor and not by the clock: other work on the machine is no fault of ours."""
    seconds = []
    for _ in range(3):
        before = os.times()
        simulate("--help")
        after = os.times()
        seconds.append(sum(after[2:4]) - sum(before[2:4]))

    assert 0 < min(seconds) < 0.5


def modules_of(*wings: str) -> list[str]:
    return [
        f"fedcondense.{wing}.{path.stem}" for wing in wings for path in (ROOT / wing).glob("*.py")
    ]


def test_methods_and_networks_load_without_flower_and_opacus():
    done = python(
        IMPORT_WITHOUT, json.dumps([modules_of("distill", "learning"), ["flwr", "opacus", "ray"]])
    )

    assert done.returncode == 0, done.stderr


def test_an_import_of_what_is_blocked_would_be_noticed():
    done = python(IMPORT_WITHOUT, json.dumps([["fedcondense.files.storage"], ["safetensors"]]))

    assert done.returncode == 1
    assert "ImportError: safetensors is not there" in done.stderr
