"""Every private name, command and flag of flwr 1.41 and Ray that the shells rely on."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import flwr
import numpy as np
import pytest
from flwr.app import Array
from flwr.common.constant import PARTITION_ID_KEY, ErrorCode
from flwr.proto.federation_config_pb2 import SimulationConfig
from flwr.server.superlink.fleet.vce.backend.raybackend import RayBackend
from flwr.simulation.ray_transport.ray_actor import BasicActorPool
from flwr.supercore.routers import health
from flwr.supercore.superexec import run_superexec
from flwr.supercore.task_identity import TaskIdentity

from fedcondense.flower.messages import _NUMPY, _npy_header


def help_of(*command: str, home: Path) -> str:
    path = Path(sys.executable).parent / command[0]
    environment = {**os.environ, "COLUMNS": "200", "FLWR_HOME": str(home), "NO_COLOR": "1"}
    environment |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    ran = subprocess.run(
        [path, *command[1:], "--help"], env=environment, capture_output=True, text=True, check=True
    )
    return ran.stdout


def source_of_flwr() -> str:
    return "\n".join(path.read_text() for path in Path(flwr.__file__).parent.rglob("*.py"))


def test_the_superlink_takes_the_flags_that_we_pass(tmp_path: Path) -> None:
    text = help_of("flower-superlink", home=tmp_path)

    for flag in ("--simulation", "--insecure", "--host", "--port"):
        assert flag in text
    assert "--disable-runtime-dependency-installation" in text


def test_flwr_run_takes_the_flags_that_we_pass(tmp_path: Path) -> None:
    text = help_of("flwr", "run", home=tmp_path)

    for flag in ("--stream", "--federation-config", "--run-config"):
        assert flag in text


def test_a_simulations_size_is_set_by_the_fields_that_we_set() -> None:
    fields = {field.name for field in SimulationConfig.DESCRIPTOR.fields}

    assert {
        "num_supernodes",
        "client_resources_num_cpus",
        "client_resources_num_gpus",
        "init_args_num_cpus",
    } <= fields


@pytest.mark.parametrize(
    "name",
    [
        "FLWR_HOME",
        "FLWR_TELEMETRY_ENABLED",
        "FLWR_DISABLE_UPDATE_CHECK",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL",
    ],
)
def test_the_environment_variables_that_we_set_are_read(name: str) -> None:
    assert f'"{name}"' in source_of_flwr()


def test_the_superlink_answers_on_health() -> None:
    assert {route.path for route in health.router.routes} == {"/health"}


def test_a_dead_process_is_asked_again_which_is_why_a_flower_run_ends_with_a_death() -> None:
    failing = inspect.getsource(RayBackend.process_message).rpartition("except")[2]

    assert "add_actor_back_to_pool" in failing
    assert "self.pool.pop()" in inspect.getsource(BasicActorPool.submit)


def test_the_codes_of_a_lost_process_and_a_lost_node_are_known() -> None:
    assert (ErrorCode.UNKNOWN, ErrorCode.NODE_UNAVAILABLE, ErrorCode.CLIENT_APP_CRASHED) == (
        0,
        5,
        8,
    )


def test_a_simulated_node_knows_its_number_by_this_name() -> None:
    assert PARTITION_ID_KEY == "partition-id"


@pytest.mark.parametrize("length", [1, 127, 67_108_864])
def test_an_array_is_an_npy_header_and_its_bytes(length: int) -> None:
    array = Array(np.zeros(length, np.uint8))

    assert (array.dtype, array.stype, array.shape) == ("uint8", _NUMPY, (length,))
    assert array.data[:-length] == _npy_header(length)


def test_tests_can_be_a_task_of_flowers() -> None:
    assert {"task_id", "run_id", "node_id"} <= set(dir(type(TaskIdentity)))
    assert run_superexec._TASK_POLL_INTERVAL_ENV == "FLWR_SUPEREXEC_TASK_POLL_INTERVAL"
