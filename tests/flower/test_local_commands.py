"""What a site's Flower processes find on their PATH, whatever type of task a server chooses."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from flwr.supercore import constant
from flwr.supercore.constant import TASK_TYPE_TO_COMMAND, TaskType
from flwr.supercore.superexec.executor import ExecutionSpec
from flwr.supercore.superexec.executor.subprocess_executor import SubprocessExecutor

from fedcondense.errors import FederationError
from fedcondense.flower.installed_app import BUNDLE_SHA256
from fedcondense.flower.local_commands import CLIENT_APP, REFUSED, SUPEREXEC, write_commands
from fedcondense.flower.processes import program


@pytest.fixture
def path(tmp_path: Path) -> str:
    return write_commands(tmp_path / "a b'c" / "bin", [BUNDLE_SHA256])


def run(path: str, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": path, "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(
        [command, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_the_folder_comes_first_and_no_other_of_flowers_commands_is_found(path: str) -> None:
    folder, *rest = path.split(":")

    assert {entry.name for entry in Path(folder).iterdir()} == {CLIENT_APP, SUPEREXEC, *REFUSED}
    assert rest == ["/usr/bin", "/bin"]


def test_only_this_user_can_change_the_commands(path: str) -> None:
    folder = Path(path.split(":")[0])

    assert {stat.S_IMODE(each.stat().st_mode) for each in (folder, *folder.iterdir())} == {0o700}


def test_every_type_of_task_that_flower_starts_has_a_command_here() -> None:
    assert set(TASK_TYPE_TO_COMMAND) == set(TaskType)
    assert set(TASK_TYPE_TO_COMMAND.values()) == {CLIENT_APP, *REFUSED}


def test_a_new_type_of_task_stops_the_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(constant.TASK_TYPE_TO_COMMAND, "flwr-robot", "flwr-robot")

    with pytest.raises(FederationError, match="starts flwr-robot"):
        write_commands(tmp_path / "bin", [BUNDLE_SHA256])


@pytest.mark.parametrize("command", REFUSED)
def test_each_other_task_is_refused(path: str, command: str) -> None:
    done = run(path, command, "--token", "x", "--insecure")

    assert done.returncode == 1
    assert done.stderr == f"{command}: this site runs no task of this type\n"


@pytest.mark.parametrize("kind", [TaskType.AGENT_APP, TaskType.CONNECTOR, TaskType.SERVER_APP])
def test_flowers_own_executor_starts_the_refusal(
    path: str, kind: TaskType, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def remember(*arguments: object, **options: object) -> object:
        started.append(real(*arguments, stderr=subprocess.PIPE))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setenv("PATH", path)
    monkeypatch.setattr(subprocess, "Popen", remember)
    spec = ExecutionSpec(
        task_type=kind,
        runtime_api_address="127.0.0.1:1",
        token="x",
        insecure=True,
        root_certificates_path=None,
        runtime_dependency_install=False,
        parent_pid=None,
        suppress_output=False,
        task_id=1,
        fab_hash=None,
    )

    SubprocessExecutor().launch(spec)

    (process,) = started
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (
        1,
        f"{kind}: this site runs no task of this type\n".encode(),
    )


def test_the_client_app_is_the_installed_one_with_this_list(path: str) -> None:
    text = (Path(path.split(":")[0]) / CLIENT_APP).read_text()

    assert f"-P -m fedcondense.flower.installed_app {BUNDLE_SHA256} -- " in text


def test_superexec_is_that_of_this_installation(path: str) -> None:
    text = (Path(path.split(":")[0]) / SUPEREXEC).read_text()

    assert text.endswith(f'exec {program(SUPEREXEC)} "$@"\n')


def test_what_lay_in_the_folder_before_is_gone(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "flwr-robot").touch()

    write_commands(tmp_path / "bin", [BUNDLE_SHA256])

    assert not (tmp_path / "bin" / "flwr-robot").exists()
