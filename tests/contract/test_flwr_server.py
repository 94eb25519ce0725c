"""Every private name, flag and path of flwr 1.41 that the server's side relies on."""

from __future__ import annotations

import dataclasses
import http
import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
import uvicorn
from flwr.cli import flower_config
from flwr.common.constant import ErrorCode, Status
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.run_pb2 import RunStatus
from flwr.supercore import logger
from flwr.supercore.constant import TASK_TYPE_TO_COMMAND, NodeStatus
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, public_key_to_bytes
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.routers import health
from flwr.superlink import main
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.routers.fleet import router as fleet
from server_kit import make_office

from fedcondense.exchange.node_key import NodeKey, node_key_pem
from fedcondense.flower import control, gathering
from fedcondense.flower.public_door import FLEET, HEALTH
from fedcondense.flower.superlink import COMMANDS, CONNECTION, SuperLink
from fedcondense.flower.superlink_process import FLOWER
from fedcondense.server.run_directory import RunDirectory

superlink = importlib.import_module(FLOWER)


def help_of(*command: str, home: Path) -> str:
    path = Path(sys.executable).parent / command[0]
    environment = {**os.environ, "COLUMNS": "200", "FLWR_HOME": str(home), "NO_COLOR": "1"}
    environment |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    ran = subprocess.run(
        [path, *command[1:], "--help"], env=environment, capture_output=True, text=True, check=True
    )
    return ran.stdout


def test_its_own_main_does_what_ours_does_with_the_same_parts():
    own = inspect.getsource(superlink._run_superlink_http_api)

    assert "create_app(lifespan_config, SuperLinkLifespan)" in own
    assert "_parse_superlink_lifespan_config()" in inspect.getsource(superlink.flower_superlink)
    assert list(inspect.signature(main.create_app).parameters) == [
        "config",
        "superlink_lifespan_class",
    ]
    assert "fastapi_app.state.superlink_lifespan = superlink_lifespan" in inspect.getsource(main)


def test_the_module_is_hidden_behind_a_function_of_its_name():
    package = importlib.import_module(FLOWER.rpartition(".")[0])

    assert inspect.ismodule(superlink)
    assert callable(package.flower_superlink)


def test_the_lifespan_keeps_the_superexec_that_it_started():
    assert "self.superexec_process = subprocess.Popen" in inspect.getsource(
        superlink.SuperLinkLifespan
    )


def test_the_settings_that_we_read_of_it_exist():
    names = {field.name for field in dataclasses.fields(SuperLinkLifespanConfig)}

    assert {"host", "port", "ssl_certfile", "ssl_keyfile"} <= names


def test_it_takes_every_flag_that_we_pass(tmp_path):
    office = make_office(tmp_path / "office")
    command = SuperLink(office.config, RunDirectory(tmp_path / "run"))._command()
    passed = [part for part in command[command.index("--") + 1 :] if part.startswith("--")]

    known = help_of("flower-superlink", home=tmp_path)

    assert len(passed) > 6
    assert [flag for flag in passed if flag not in known] == []


def test_flwr_run_takes_an_app_and_the_name_of_a_superlink(tmp_path):
    text = help_of("flwr", "run", home=tmp_path)

    assert "[APP] [SUPERLINK]" in text
    assert "--run-config" in text


@pytest.mark.parametrize(
    "name", ["ListNodes", "RegisterNode", "UnregisterNode", "ListRuns", "StopRun"]
)
def test_the_paths_of_the_control_api_are_those_of_flowers_own_client(name):
    words = "".join(f"-{c.lower()}" if c.isupper() else c for c in name).strip("-")

    assert f'path="{control.CONTROL}{words}"' in inspect.getsource(getattr(ControlHttpClient, name))
    assert f'"{words}"' in inspect.getsource(control)


def test_its_words_are_those_that_we_compare_with():
    assert control.MEDIA_TYPE == PROTOBUF_MEDIA_TYPE
    assert control.FINISHED == Status.FINISHED
    assert (control.ONLINE, control.UNREGISTERED) == (NodeStatus.ONLINE, NodeStatus.UNREGISTERED)
    assert {"node_id", "public_key", "status"} <= {f.name for f in NodeInfo.DESCRIPTOR.fields}
    assert {"status", "sub_status"} <= {f.name for f in RunStatus.DESCRIPTOR.fields}


def test_a_registered_key_has_the_form_that_it_is_listed_in():
    pem = node_key_pem(NodeKey.generate().public)

    assert public_key_to_bytes(bytes_to_public_key(pem)) == pem


def test_all_that_a_supernode_calls_is_under_the_paths_that_the_door_lets_pass():
    routes = [*fleet.router.routes, *health.router.routes]
    paths = {(method, route.path) for route in routes for method in route.methods}

    assert {(m, p) for m, p in paths if p.startswith(FLEET)} == {
        ("POST", f"{FLEET}{call}")
        for call in (
            "register-node",
            "activate-node",
            "deactivate-node",
            "unregister-node",
            "send-node-heartbeat",
            "pull-messages",
            "push-messages",
            "get-run",
            "get-fab",
            "push-object",
            "pull-object",
            "confirm-message-received",
        )
    }
    others = {(method, path) for method, path in paths if not path.startswith(FLEET)}
    assert others == {("GET", HEALTH), ("HEAD", HEALTH)}


def test_the_commands_that_it_starts_are_those_on_its_path():
    command = superlink._get_superexec_command("127.0.0.1:1", None, None, 1, False)

    assert command[0] == COMMANDS[0] == "flower-superexec"
    assert COMMANDS[1] in TASK_TYPE_TO_COMMAND.values()
    assert "--allow-runtime-dependency-installation" not in command


def test_the_codes_of_a_site_that_went_away_are_known():
    away = {
        ErrorCode.MESSAGE_UNAVAILABLE,
        ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
        ErrorCode.NODE_UNAVAILABLE,
    }

    assert away == gathering.AWAY
    assert ErrorCode.CLIENT_APP_CRASHED == 8


def test_uvicorn_takes_what_the_door_needs():
    parameters = inspect.signature(uvicorn.Config).parameters

    assert {"access_log", "proxy_headers", "server_header", "ws", "ssl_certfile"} <= set(parameters)
    assert "sockets" in inspect.signature(uvicorn.Server.run).parameters


def test_the_status_that_keeps_a_supernode_waiting_is_one_that_it_tries_again():
    from flwr.supercore.retry import make_simple_http_retry_invoker

    source = inspect.getsource(inspect.getmodule(make_simple_http_retry_invoker))

    assert http.HTTPStatus.SERVICE_UNAVAILABLE.name in source or "503" in source


def test_flower_reads_the_connection_that_we_write(tmp_path, monkeypatch):
    office = make_office(tmp_path / "office")
    link = SuperLink(office.config, RunDirectory(tmp_path / "run"))
    link.home.mkdir(parents=True)
    office.certify()
    link._write_connection()
    monkeypatch.setenv("FLWR_HOME", str(link.home))

    connection = flower_config.read_superlink_connection(CONNECTION)

    assert connection.address == f"127.0.0.1:{office.config.address.admin_port}"
    assert Path(connection.root_certificates) == office.config.tls.authority
    assert not connection.insecure
    assert flower_config.read_superlink_connection() == connection


def test_flower_reads_its_log_level_from_the_environment():
    assert 'os.getenv("FLWR_LOG_LEVEL")' in inspect.getsource(logger)
