"""What stands in for Flower's `flwr-clientapp`: the installed app or nothing."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.clientapp.client_app import LoadClientAppError

from fedcondense.files.storage import sha256
from fedcondense.flower import client_app, installed_app
from fedcondense.flower.installed_app import (
    APP_ID,
    BUNDLE_SHA256,
    LOOKED_UP,
    Gate,
    allowed_bundles,
    localise,
)
from fedcondense.flower.simulation import BUNDLE

RUNNER = importlib.import_module(installed_app.RUNNER)
COMMAND = importlib.import_module(installed_app.COMMAND)
HOSTILE = b"PK\3\4 not ours"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Flower's module; what is replaced in it is put back."""
    for name in LOOKED_UP:
        monkeypatch.setattr(RUNNER, name, getattr(RUNNER, name))
    return RUNNER


@pytest.fixture
def gate(said: list[str]) -> Gate:
    return Gate(frozenset({sha256(b"ours")}), said.append)


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
def test_the_list_is_never_empty_and_holds_the_bundle_as_flower_builds_it() -> None:
    assert sha256(build_fab_from_disk(BUNDLE)) == BUNDLE_SHA256
    assert allowed_bundles() == (BUNDLE_SHA256,)
    assert allowed_bundles(("ab" * 32,)) == (BUNDLE_SHA256, "ab" * 32)


def test_flowers_command_finds_ours_under_every_name_that_it_looks_up(
    runner: ModuleType, gate: Gate
) -> None:
    before = {name: getattr(runner, name) for name in LOOKED_UP}

    start = localise(gate)

    assert start is COMMAND.flwr_clientapp
    assert all(getattr(runner, name) is not before[name] for name in LOOKED_UP)


def test_a_listed_bundle_is_not_unpacked_and_the_installed_app_answers(
    runner: ModuleType, gate: Gate, said: list[str]
) -> None:
    localise(gate)

    assert runner.install_from_fab(b"ours", skip_prompt=True) is None
    load = runner.get_load_client_app_fn(default_app_ref="", app_path=None, multi_app=True)
    assert load(APP_ID, "9.9.9", "cd" * 32) is client_app.app
    assert said == []


def test_no_path_that_a_server_names_is_looked_into(runner: ModuleType, gate: Gate) -> None:
    localise(gate)

    assert runner.get_project_dir("../../etc/passwd", "1", "x") == Path()


@pytest.mark.parametrize(
    "refused",
    [
        lambda runner: runner.install_from_fab(HOSTILE, skip_prompt=True),
        lambda runner: runner.get_load_client_app_fn(multi_app=True)("else/where", "1", "x"),
        lambda runner: runner.install_app_dependencies(Path(), launch_id="x"),
    ],
    ids=["another digest", "another id", "wants to install"],
)
def test_a_refusal_is_told_here_and_says_nothing_there(
    runner: ModuleType, gate: Gate, said: list[str], refused: Callable[[ModuleType], object]
) -> None:
    localise(gate)

    with pytest.raises(LoadClientAppError, match=r"^refused$"):
        refused(runner)

    (line,) = said
    assert line.startswith("bundle refused: ")


def test_an_app_that_cannot_be_loaded_is_refused_without_its_text(
    runner: ModuleType, gate: Gate, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fedcondense.flower.client_app", None)
    localise(gate)

    with pytest.raises(LoadClientAppError, match=r"^refused$"):
        runner.get_load_client_app_fn()(APP_ID, "1", "x")

    assert said == ["bundle refused: the installed app cannot be loaded: ModuleNotFoundError"]


@pytest.mark.parametrize("name", LOOKED_UP)
def test_a_flower_without_a_name_that_is_replaced_runs_nothing(
    runner: ModuleType, gate: Gate, said: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(runner, name)

    with pytest.raises(SystemExit) as end:
        localise(gate)

    assert end.value.code == 1
    assert said == [
        f"this site runs no app with this version of Flower: it does not look up {name}"
    ]


def test_a_flower_that_runs_something_else_runs_nothing(
    gate: Gate, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(COMMAND, "run_clientapp", lambda **_: None)

    with pytest.raises(SystemExit):
        localise(gate)

    assert said[0].endswith("its command runs something else")


def test_a_flower_that_was_rearranged_runs_nothing(
    gate: Gate, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed_app, "RUNNER", "flwr.supernode.elsewhere")

    with pytest.raises(SystemExit):
        localise(gate)

    assert said[0].endswith("it has been rearranged")


@pytest.mark.parametrize("arguments", [[], ["--"], ["all", "--"], ["*", "--", "--token", "x"]])
def test_without_a_list_of_digests_nothing_starts(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "fedcondense.flower.installed_app", *arguments]

    done = subprocess.run(command, check=False, capture_output=True, text=True)

    assert done.returncode == 1
    assert done.stderr == "flwr-clientapp: no list of bundles was given\n"


def test_what_libraries_print_reaches_no_log_and_our_own_lines_do() -> None:
    code = (
        "from fedcondense.flower.installed_app import _muffle\n"
        "import os, sys, warnings\n"
        "say = _muffle()\n"
        "print('Jane Doe', flush=True); warnings.warn('Jane Doe'); os.system('echo Jane Doe >&2')\n"
        "say('one line')\n"
        "os.abort()"
    )

    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)

    assert "Jane Doe" not in done.stdout + done.stderr
    assert done.stderr.startswith("flwr-clientapp: one line\nFatal Python error: Aborted")
