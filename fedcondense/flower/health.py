"""The standard gRPC health service of a Flower process: is it up?

Flower's answer is always SERVING and comes before the process has reached its peer: it says "the
process is up", not "connected".
"""

from __future__ import annotations

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub


def is_serving(port: int, *, seconds: float = 2.0) -> bool:
    """Whether the health service on a port of this machine answers SERVING within `seconds`."""
    with grpc.insecure_channel(
        f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]
    ) as channel:
        try:
            reply = HealthStub(channel).Check(HealthCheckRequest(), timeout=seconds)
        except grpc.RpcError:
            return False
        return bool(reply.status == HealthCheckResponse.SERVING)
