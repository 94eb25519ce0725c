"""What of Flower's SuperLink the public port shows: the Fleet API and health, once it is open.

Flower serves all its APIs on one port and authenticates the Fleet API alone: whoever trusts the
authority could start a run or take a pending task. So this filter stands before all of them and
looks at the port that a request came in by. It knows nothing of Flower.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

FLEET, HEALTH = "/v1/fleet/", "/health"
UPLOADS = {"/v1/fleet/push-object", "/v1/fleet/push-messages"}
NODE_KEY = b"flwr-public-key"  # header of every request by which Flower authenticates a node
TAKEN = range(200, 300)  # HTTP status
WEBSOCKET_REFUSED = 1008  # RFC 6455, section 7.4.1: policy violation


@dataclass(frozen=True)
class PublicDoor:
    """An ASGI application before another one.

    Requests by `admin_port` pass. Of all others only those pass that a SuperNode makes, no longer
    than `largest` bytes, and only while the file `ready` exists. By all its uploads together a node
    brings in `budget` bytes, a request that is under way more; a SuperLink lives for one round.
    """

    app: App
    admin_port: int
    ready: Path
    largest: int
    budget: int
    brought: dict[bytes, int] = field(default_factory=dict)  # by node key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with a status and nothing else."""
        if scope["type"] == "lifespan" or self._is_admin(scope):
            await self.app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": WEBSOCKET_REFUSED})
        elif (status := self.refusal(scope)) is not None:
            await answer(status, send)
        elif scope["path"] in UPLOADS:
            await self.app(scope, receive, self._counting(scope, send))
        else:
            await self.app(scope, receive, send)

    def refusal(self, scope: Scope) -> HTTPStatus | None:
        """Why a request by the public port is refused; None if it passes."""
        path, method = scope["path"], scope["method"]
        is_fleet = path.startswith(FLEET) and method == "POST"
        is_health = path == HEALTH and method in ("GET", "HEAD")
        if not is_fleet and not is_health:
            return HTTPStatus.NOT_FOUND
        if not self.ready.exists():
            return HTTPStatus.SERVICE_UNAVAILABLE
        return self._refused_length(scope) or self._refused_upload(scope)

    def _refused_upload(self, scope: Scope) -> HTTPStatus | None:
        is_over = self.brought.get(_node_key(scope), 0) >= self.budget
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE if scope["path"] in UPLOADS and is_over else None

    def _counting(self, scope: Scope, send: Send) -> Send:
        """Count a body once Flower has taken it: before that, anybody can name another's key."""
        key, length = _node_key(scope), int(dict(scope["headers"]).get(b"content-length", b"0"))

        async def counted(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start" and message["status"] in TAKEN:
                self.brought[key] = self.brought.get(key, 0) + length
            await send(message)

        return counted

    def _is_admin(self, scope: Scope) -> bool:
        """Whether it came in by the port that is bound to 127.0.0.1; the default is: no."""
        server = scope.get("server")
        return server is not None and bool(server[1] == self.admin_port)

    def _refused_length(self, scope: Scope) -> HTTPStatus | None:
        """A body tells its length first: one of unknown length could go on for ever."""
        headers = dict(scope["headers"])
        if b"transfer-encoding" in headers:
            return HTTPStatus.LENGTH_REQUIRED
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            return HTTPStatus.BAD_REQUEST
        too_long = len(length) > len(str(self.largest)) or int(length) > self.largest
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE if too_long else None


def _node_key(scope: Scope) -> bytes:
    """The key that Flower takes the request for, if it does: of several the first, decoded.

    By the letters of base64 a node could have several budgets, by a second header another's.
    """
    named = (value for name, value in scope["headers"] if name == NODE_KEY)
    try:
        return b64decode(next(named, b""), validate=True)
    except ValueError:
        return b""


async def answer(status: HTTPStatus, send: Send) -> None:
    """A status and nothing else."""
    headers = [(b"content-length", b"0"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": b""})
