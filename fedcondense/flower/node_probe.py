"""Does the server know this node? Asked so that nothing changes there.

An activation with a heartbeat interval that is not allowed is refused in either case: of an unknown
key for being unknown, of a known one for the interval. So a running SuperNode is not disturbed.
"""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from enum import Enum

import httpx
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.constant import VERSION_INCOMPATIBILITY_MESSAGE_METADATA_KEY
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.interceptors.http.utils import add_headers
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedcondense.config.site import SiteConfig
from fedcondense.exchange.node_key import NodeKey
from fedcondense.site.readiness import server_of

NOT_ALLOWED = 0.0  # seconds between heartbeats


class Standing(Enum):
    """What the server thinks of a node."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    UNSIGNED = "its signature is refused"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class NodeAnswer:
    """What the server answered: its HTTP status, and what Flower says of the two versions."""

    standing: Standing
    status: int
    complaint: str


def probe_node(site: SiteConfig) -> NodeAnswer:
    """Ask whether the site's node key is enrolled.

    Raises:
        OSError: the server cannot be reached.
        KeyFileError: the node key cannot be used.
        SettingsError: SITE.toml names no server.
    """
    server, key = server_of(site), NodeKey.load(site.node_key)
    client = FleetHttpClient.from_server_address(
        server.address,
        insecure=False,
        root_certificates=server.authority.read_bytes(),
        interceptors=[_OwnVersion(), NodeAuthHttpInterceptor(*key.pair)],
    )
    request = ActivateNodeRequest(public_key=key.public_pem, heartbeat_interval=NOT_ALLOWED)
    try:
        with client:
            client.ActivateNode(request)
    except httpx.HTTPStatusError as error:
        answer = error.response
        complaint = answer.headers.get(VERSION_INCOMPATIBILITY_MESSAGE_METADATA_KEY, "")
        return NodeAnswer(_standing(answer.status_code, answer.text), answer.status_code, complaint)
    except httpx.HTTPError as error:
        raise OSError(type(error).__name__) from None
    return NodeAnswer(Standing.UNCLEAR, http.client.OK, "")


def _standing(status: int, text: str) -> Standing:
    if status == http.client.UNAUTHORIZED:
        return Standing.UNSIGNED
    error = FlowerError.from_json(text)
    if error is None:
        return Standing.UNCLEAR
    found: dict[int, Standing] = {
        ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL: Standing.KNOWN,
        ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED: Standing.UNKNOWN,
    }
    return found.get(error.code, Standing.UNCLEAR)


class _OwnVersion:
    """Tells the server this version of Flower, so that it can compare."""

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        version = RuntimeVersionMetadata.from_local_component("SuperNode")
        add_headers(context.request, dict(version.as_metadata()))
        return call_next(context)
