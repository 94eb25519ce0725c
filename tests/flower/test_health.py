"""Readiness by the standard gRPC health service, and what systemd is told."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from flwr.supercore.grpc_health import run_health_server_grpc_no_tls
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from fedcondense.flower.health import is_serving
from fedcondense.flower.notify import READY, notify
from fedcondense.flower.processes import free_port


@pytest.fixture
def unwell() -> Iterator[int]:
    """The port of a health service that answers NOT_SERVING."""
    servicer = HealthServicer()
    servicer.set("", HealthCheckResponse.NOT_SERVING)
    server = grpc.server(ThreadPoolExecutor(1))
    add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(0)


def test_flowers_health_service_is_serving() -> None:
    port = free_port()
    server = run_health_server_grpc_no_tls(f"127.0.0.1:{port}")

    assert is_serving(port)

    server.stop(0)


def test_a_service_that_says_no_is_not_serving(unwell: int) -> None:
    assert not is_serving(unwell)


def test_a_port_where_nobody_listens_is_not_serving() -> None:
    assert not is_serving(free_port(), seconds=0.5)


def test_whoever_listens_and_says_nothing_is_not_serving() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not is_serving(silent.getsockname()[1], seconds=0.2)


def test_systemd_hears_that_the_site_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))

        notify(READY, "STATUS=connected")

        assert manager.recv(100) == b"READY=1\nSTATUS=connected"


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "@nobody"])
def test_without_a_service_manager_nothing_happens_and_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], address: str
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)

    notify(READY)

    assert capfd.readouterr() == ("", "")
