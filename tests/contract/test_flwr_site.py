"""Every private name, flag and printed word of flwr 1.41 that a site relies on."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import httpx
import pytest
from flwr.clientapp.client_app import LoadClientAppError
from flwr.common.constant import (
    HEARTBEAT_MIN_INTERVAL,
    SYSTEM_TIME_TOLERANCE,
    TIMESTAMP_TOLERANCE,
    ErrorCode,
)
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore import constant
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.protobuf.client import ProtobufRequestContext
from flwr.supercore.retry import http_retry
from flwr.supercore.utils import get_flwr_home
from flwr.superlink.servicer.fleet import fleet_handlers
from flwr.supernode import fleet_http_client, fleet_http_connection, start_client_internal
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedcondense.exchange.node_key import NodeKey
from fedcondense.flower import installed_app, node_probe, supernode_log
from fedcondense.flower.hops import MOST_AHEAD, MOST_BEHIND
from fedcondense.flower.installed_app import LOOKED_UP
from fedcondense.flower.local_commands import SUPEREXEC

SUPERNODE = importlib.import_module("flwr.supernode.cli.flower_supernode")
RUNNER = importlib.import_module(installed_app.RUNNER)


def test_the_supernode_takes_the_flags_that_we_pass() -> None:
    parser = SUPERNODE._parse_args_run_supernode()

    known = {flag for action in parser._actions for flag in action.option_strings}

    assert {
        "--superlink",
        "--root-certificates",
        "--auth-supernode-private-key",
        "--host",
        "--port",
        "--node-config",
        "--health-server-address",
    } <= known
    # what must never be passed still exists under its name, and is off
    defaults = parser.parse_args([])
    assert "--allow-runtime-dependency-installation" in known
    assert (defaults.runtime_dependency_install, defaults.insecure) == (False, False)


def test_the_supernode_finds_superexec_by_its_bare_name() -> None:
    source = inspect.getsource(start_client_internal)

    assert f'command = ["{SUPEREXEC}"]' in source
    assert '"--parent-pid", str(os.getpid())' in source


def test_the_client_process_looks_up_every_name_that_is_replaced() -> None:
    assert set(LOOKED_UP) <= set(RUNNER.run_clientapp.__code__.co_names)
    assert all(callable(getattr(RUNNER, name)) for name in LOOKED_UP)


def test_the_client_process_calls_what_is_replaced_as_we_expect_it() -> None:
    source = inspect.getsource(RUNNER.run_clientapp)

    assert "install_from_fab(fab.content, skip_prompt=True)" in source
    assert "get_project_dir(run.fab_id, run.fab_version, fab.hash_str)" in source
    assert re.search(r"load_client_app_fn\(\s*run\.fab_id, run\.fab_version, fab\.hash_str", source)


def test_the_text_of_a_refused_load_is_flowers_own() -> None:
    source = inspect.getsource(RUNNER.run_clientapp)

    refusal = source[source.index("isinstance(ex, LoadClientAppError)") :]
    assert 'reason = "An exception was raised when attempting to load `ClientApp`"' in refusal[:120]
    assert ErrorCode.LOAD_CLIENT_APP_EXCEPTION == 1
    assert issubclass(LoadClientAppError, Exception)


@pytest.mark.parametrize(
    ("module", "printed"),
    [
        (start_client_internal, '"SuperNode ID: %s"'),
        (start_client_internal, '"SuperNode terminated gracefully."'),
        (start_client_internal, '"Sending: %s message (ID: %s)"'),
        (start_client_internal, '"Sent successfully"'),
        (start_client_internal, '"Failed to send message %s: %s"'),
        (start_client_internal, '"Run ID %s is not in `RUNNING` status.'),
        (http_retry, '"SSL/TLS handshake error detected."'),
        (fleet_http_connection, 'f"[code: {flower_error.code}] {flower_error.message}"'),
    ],
)
def test_a_supernode_prints_the_words_by_which_we_know_its_state(
    module: object, printed: str
) -> None:
    source = Path(inspect.getsourcefile(module) or "").read_text()

    assert printed in source


def test_the_words_that_we_look_for_are_among_them() -> None:
    log = supernode_log
    marks = b"".join([log.CONNECTED, log.SENDING, *log.THROUGH, *log._REASONS]).decode()

    for word in ("SuperNode ID: ", "[code: 2004]", "SSL/TLS handshake error", "terminated grace"):
        assert word in marks
    for word in ("Sending: ", "Sent successfully", "Failed to send message", "not in `RUNNING`"):
        assert word in marks
    assert ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED == 2004


def test_clocks_may_differ_as_much_as_check_says() -> None:
    assert MOST_AHEAD < SYSTEM_TIME_TOLERANCE == 5
    assert MOST_BEHIND < TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE == 305


class Nodes:
    """A server's state that knows one key, and must not be asked to activate it."""

    def get_node_id_by_public_key(self, key: bytes) -> int | None:
        return 7 if key == b"known" else None

    def activate_node(self, *_: object) -> bool:
        raise AssertionError("the probe activates a node")


@pytest.mark.parametrize(("key", "code"), [(b"known", 2003), (b"unknown", 2004)])
def test_the_probe_is_refused_in_either_case_and_tells_them_apart(key: bytes, code: int) -> None:
    request = ActivateNodeRequest(public_key=key, heartbeat_interval=node_probe.NOT_ALLOWED)

    with pytest.raises(FlowerError) as error:
        fleet_handlers.activate_node(request, Nodes())  # type: ignore[arg-type]

    assert error.value.code == code
    assert HEARTBEAT_MIN_INTERVAL > node_probe.NOT_ALLOWED


def test_a_probe_is_signed_as_a_supernode_signs() -> None:
    key = NodeKey.generate()
    request = httpx.Request("POST", "https://server/v1/fleet/activate-node")
    message = ActivateNodeRequest()
    context = ProtobufRequestContext("/flwr.proto.Fleet/ActivateNode", message, request)

    NodeAuthHttpInterceptor(*key.pair).intercept(context, lambda _: httpx.Response(200))

    assert constant.FLEET_HTTP_PUBLIC_KEY_HEADER in request.headers
    assert constant.FLEET_HTTP_SIGNATURE_HEADER in request.headers
    assert "/v1/fleet/activate-node" in inspect.getsource(fleet_http_client.FleetHttpClient)


def test_flowers_home_is_the_folder_that_we_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))

    assert get_flwr_home() == tmp_path
