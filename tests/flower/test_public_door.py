"""The public port shows the Fleet API and health, and those only while it is open."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fedcondense.flower.public_door import PublicDoor

ADMIN, PUBLIC = 8445, 8444
PASSED = 299  # what the application behind the door answers
FLEET = ["register-node", "activate-node", "pull-messages", "push-object", "get-fab"]
OTHERS = [
    "/v1/control/start-run",
    "/v1/control/list-nodes",
    "/v1/control/register-node",
    "/v1/runtime/acquire-task",
    "/v1/runtime/pull-task-input",
    "/v1/responses",
    "/docs",
    "/openapi.json",
    "/",
    "",
    "/v1/fleet",
    "/V1/fleet/pull-messages",
    "//v1/fleet/pull-messages",
    "/health/",
    "/healthz",
]


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    path = tmp_path / "ready"
    path.touch()
    return path


async def _behind(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": PASSED, "headers": []})
    await send({"type": "http.response.body", "body": b"secret"})


def door(ready: Path) -> PublicDoor:
    return PublicDoor(_behind, ADMIN, ready, 1000, 2500)


def answers(door: PublicDoor, path: str, method: str = "POST", **scope: Any) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("a refused request's body is not read")

    values = {"type": "http", "path": path, "method": method, "headers": []} | scope
    values.setdefault("server", ("192.0.2.7", PUBLIC))
    asyncio.run(door(values, receive, send))
    return sent


def status(door: PublicDoor, path: str, method: str = "POST", **scope: Any) -> int:
    first, *rest = answers(door, path, method, **scope)
    if first["status"] != PASSED:
        assert rest == [{"type": "http.response.body", "body": b""}]
    return first["status"]


@pytest.mark.parametrize("call", FLEET)
def test_what_a_supernode_asks_passes(ready: Path, call: str) -> None:
    assert status(door(ready), f"/v1/fleet/{call}") == PASSED


def test_health_is_shown(ready: Path) -> None:
    assert status(door(ready), "/health", "GET") == PASSED


@pytest.mark.parametrize("path", OTHERS)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_nothing_else_is_there(ready: Path, path: str, method: str) -> None:
    assert status(door(ready), path, method) == 404


@pytest.mark.parametrize(("path", "method"), [("/v1/fleet/get-fab", "GET"), ("/health", "POST")])
def test_a_call_has_its_one_method(ready: Path, path: str, method: str) -> None:
    assert status(door(ready), path, method) == 404


@pytest.mark.parametrize("path", [*OTHERS, "/v1/fleet/get-fab", "/health"])
def test_all_passes_by_the_admin_port(tmp_path: Path, path: str) -> None:
    server = ("127.0.0.1", ADMIN)

    assert status(door(tmp_path / "missing"), path, server=server) == PASSED


@pytest.mark.parametrize("server", [None, ("127.0.0.1", PUBLIC), ("127.0.0.1", None)])
def test_a_request_whose_port_is_not_known_to_be_the_admins_is_public(
    ready: Path, server: Any
) -> None:
    assert status(door(ready), "/v1/control/start-run", server=server) == 404


def test_before_it_is_ready_and_after_all_is_unavailable(ready: Path) -> None:
    closed = door(ready)
    ready.unlink()

    assert status(closed, "/v1/fleet/pull-messages") == 503
    assert status(closed, "/health", "GET") == 503
    assert status(closed, "/v1/control/start-run") == 404

    ready.touch()

    assert status(closed, "/v1/fleet/pull-messages") == PASSED


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([(b"content-length", b"1000")], PASSED),
        ([(b"content-length", b"1001")], 413),
        ([(b"content-length", b"9" * 5000)], 413),
        ([(b"content-length", b"-1")], 400),
        ([(b"content-length", b"0x10")], 400),
        ([(b"transfer-encoding", b"chunked")], 411),
        ([(b"content-length", b"1"), (b"transfer-encoding", b"chunked")], 411),
    ],
)
def test_a_body_is_no_longer_than_it_may_be(ready: Path, headers: Any, expected: int) -> None:
    assert status(door(ready), "/v1/fleet/push-object", headers=headers) == expected


def test_the_admins_bodies_may_be_longer(ready: Path) -> None:
    headers = [(b"content-length", b"100000")]

    assert status(door(ready), "/x", headers=headers, server=("127.0.0.1", ADMIN)) == PASSED


def test_a_websocket_is_closed(ready: Path) -> None:
    sent = answers(door(ready), "/v1/fleet/get-fab", type="websocket")

    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_the_applications_own_life_passes(ready: Path) -> None:
    assert answers(door(ready), "", type="lifespan")[0]["status"] == PASSED


def test_what_a_node_brings_in_by_all_its_uploads_is_bounded(ready: Path) -> None:
    public, upload = door(ready), "/v1/fleet/push-object"
    sent = [(b"content-length", b"1000"), (b"flwr-public-key", b"YQ==")]
    again = [sent[0], (b"flwr-public-key", b"YR=="), (b"flwr-public-key", b"YW5vdGhlcg==")]

    assert [status(public, upload, headers=sent) for _ in range(4)] == [PASSED] * 3 + [413]
    assert status(public, upload, headers=again) == 413  # the same key in other letters
    assert status(public, "/v1/fleet/pull-messages", headers=sent) == PASSED
    assert status(public, upload, headers=[sent[0], (b"flwr-public-key", b"dHdv")]) == PASSED


def test_what_flower_refuses_uses_up_nobodys_budget(ready: Path) -> None:
    async def refusing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    public = PublicDoor(refusing, ADMIN, ready, 1000, 2500)
    forged = [(b"content-length", b"1000"), (b"flwr-public-key", b"YW5vdGhlcg==")]

    assert {status(public, "/v1/fleet/push-object", headers=forged) for _ in range(9)} == {401}
    assert public.brought == {}
