"""What a coordinator gives between runs answers at once: no torch, and nothing of research."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from enrolment_kit import Applicant
from server_kit import Office, make_office

HEAVY = ("torch", "opacus", "ray", "matplotlib", "pydicom", "fedcondense.research")
CALL = """
import atexit, json, sys
heavy, sys.argv = json.loads(sys.argv[1]), ["fedcondense-server", *sys.argv[2:]]
atexit.register(lambda: print("loaded", [name for name in heavy if name in sys.modules]))
from fedcondense.cli.server import main
main()
"""


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Office:
    made = make_office(tmp_path_factory.mktemp("office"))
    made.certify()
    return made


def server(*arguments: str, heavy: tuple[str, ...] = HEAVY) -> tuple[int, str, str]:
    """Exit code of the command, its last line on standard output, its standard error."""
    command = [sys.executable, "-c", CALL, json.dumps(heavy), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout.splitlines()[-1], done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], []], ids=str)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    assert server(*arguments)[1] == "loaded []"


def test_init_enroll_revoke_and_status_load_nothing_heavy(tmp_path: Path) -> None:
    path = str(tmp_path / "SERVER.toml")
    request = str(Applicant().write(tmp_path))

    given = [
        server("init", path, "localhost"),
        server("enroll", path, request),
        server("status", path),
        server("revoke", path, "lakeside"),
    ]

    assert [loaded for _, loaded, _ in given] == ["loaded []"] * 4
    assert [code for code, _, _ in given] == [0, 0, 1, 0], [said for _, _, said in given]


def test_what_cannot_be_run_is_told_before_anything_heavy_is_loaded(office: Office) -> None:
    path = office.folder / "wrong.toml"
    path.write_text('study = "STUDY.toml"\ndeadline = "3 h"\n')

    code, loaded, said = server("run", str(path))

    assert (code, loaded) == (2, "loaded []")
    assert said == (
        "fedcondense-server: error FC101: wrong.toml: address: Field required; "
        "evaluation: Field required; deadline: Extra inputs are not permitted\n"
        "fedcondense-server: hint: every key is described in docs/ref-settings.md\n"
    )


def test_a_heavy_command_would_be_noticed() -> None:
    assert server("--help", heavy=("typer", "torch"))[1] == "loaded ['typer']"
