"""What the parent asks of its own SuperLink: which nodes and runs there are, by the admin port.

Flower's own client would follow the proxies of the environment; here nothing does.
"""

from __future__ import annotations

import contextlib
import http.client
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListNodesResponse,
    ListRunsRequest,
    ListRunsResponse,
    RegisterNodeRequest,
    RegisterNodeResponse,
    StopRunRequest,
    StopRunResponse,
    UnregisterNodeRequest,
    UnregisterNodeResponse,
)

from fedcondense.errors import FederationError

HOST = "127.0.0.1"
CONTROL = "/v1/control/"
MEDIA_TYPE = "application/protobuf"
FINISHED = "finished"  # how the status of a run begins that is over, however it ended
UNREGISTERED = "unregistered"  # a node of which only the key is kept, so that it cannot come back
ONLINE = "online"


@runtime_checkable
class _Message(Protocol):
    """What is used of a protobuf message."""

    def SerializeToString(self) -> bytes: ...

    def ParseFromString(self, data: bytes) -> int: ...


Answer = TypeVar("Answer", bound=_Message)


@dataclass(frozen=True)
class Node:
    """A registered SuperNode; `key` is its public key in PEM."""

    number: int
    key: bytes
    online: bool


@dataclass(frozen=True)
class Control:
    """The Control API of a SuperLink on this machine; `authority` is the file that is trusted."""

    port: int
    authority: Path
    seconds: float = field(default=30.0)

    def is_up(self) -> bool:
        """Whether the SuperLink answers."""
        return https_status(HOST, self.port, self.authority) == http.client.OK

    def nodes(self) -> list[Node]:
        """The nodes that may connect.

        Raises:
            FederationError: the SuperLink does not answer; so for every call.
        """
        listed = self._call("list-nodes", ListNodesRequest(), ListNodesResponse())
        return [
            Node(node.node_id, node.public_key, node.status == ONLINE)
            for node in listed.nodes_info
            if node.status != UNREGISTERED
        ]

    def register(self, key: bytes) -> int:
        """Let the node with this public key (PEM) connect; its number."""
        request = RegisterNodeRequest(public_key=key)
        return int(self._call("register-node", request, RegisterNodeResponse()).node_id)

    def unregister(self, number: int) -> None:
        """Refuse a node from now on, and its key for as long as the database lives."""
        request = UnregisterNodeRequest(node_id=number)
        self._call("unregister-node", request, UnregisterNodeResponse())

    def runs(self) -> dict[int, str]:
        """The state of each Flower run, such as `running` or `finished:failed`."""
        listed = self._call("list-runs", ListRunsRequest(), ListRunsResponse())
        return {
            int(number): ":".join(
                part for part in (run.status.status, run.status.sub_status) if part
            )
            for number, run in listed.run_dict.items()
        }

    def stop(self, run: int) -> None:
        """End a Flower run; what it asked is not delivered any more."""
        self._call("stop-run", StopRunRequest(run_id=run), StopRunResponse())

    def _call(self, name: str, request: _Message, answer: Answer) -> Answer:
        headers = {"content-type": MEDIA_TYPE, "accept": MEDIA_TYPE}
        try:
            connection = _connection(HOST, self.port, self.authority, self.seconds)
            with contextlib.closing(connection):
                connection.request("POST", CONTROL + name, request.SerializeToString(), headers)
                response = connection.getresponse()
                status, body = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise _unanswered(f"{name}: {type(error).__name__}") from None
        if status != http.client.OK:
            raise _unanswered(f"{name} with status {status}")
        answer.ParseFromString(body)
        return answer


def https_status(host: str, port: int, authority: Path, *, seconds: float = 3.0) -> int | None:
    """The status of /health by HTTPS; None where nobody answers whom the authority vouches for.

    The name is not looked at: `host` is this machine's own, and need not be in the certificate.
    """
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection = _connection(host, port, authority, seconds, any_name=True)
        with contextlib.closing(connection):
            connection.request("GET", "/health")
            return connection.getresponse().status
    return None


def _connection(
    host: str, port: int, authority: Path, seconds: float, *, any_name: bool = False
) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=authority)
    context.check_hostname = not any_name
    return http.client.HTTPSConnection(host, port, timeout=seconds, context=context)


def _unanswered(what: str) -> FederationError:
    return FederationError(
        f"Flower's SuperLink did not answer {what}", hint="see its log in the run directory"
    )
