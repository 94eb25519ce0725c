"""What the server's Flower processes are given, and what they are not."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from server_kit import Office, make_office

from fedcondense.errors import FederationError
from fedcondense.flower import superlink
from fedcondense.flower.processes import free_port
from fedcondense.flower.superlink import COMMANDS, SuperLink
from fedcondense.server.run_directory import RunDirectory


@pytest.fixture
def office(tmp_path: Path) -> Office:
    ports = {name: free_port() for name in ("port", "admin_port", "health_port")}
    address = {"names": ["localhost"], "listen": "127.0.0.1", **ports}
    return make_office(tmp_path / "office", address=address)


@pytest.fixture
def link(office: Office) -> SuperLink:
    made = SuperLink(office.config, RunDirectory(office.config.runs / "a run"))
    made.home.mkdir(parents=True)
    return made


def test_nothing_of_the_environment_passes_but_place_and_language(
    link: SuperLink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "FLWR_INTERNAL_GRPC_FLEET_API", "SSL_CERT_FILE", "AWS_SECRET"):
        monkeypatch.setenv(name, "planted")
    monkeypatch.setenv("LANG", "de_CH.UTF-8")

    environment = link._environment(tmp_path)

    assert "planted" not in environment.values()
    assert environment["LANG"] == "de_CH.UTF-8"
    assert environment["FLWR_HOME"] == str(link.home)
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_DISABLE_UPDATE_CHECK"] == "1"


def test_neither_command_nor_environment_names_a_secret_key_but_that_of_the_port(
    link: SuperLink, office: Office, tmp_path: Path
) -> None:
    told = [*link._command(), *link._environment(tmp_path).values()]

    named = [part for part in told if str(office.config.keys) in part]
    assert {Path(part).name for part in named} == {"server.pem", "server.key", "authority.pem"}


def test_all_that_flower_finds_on_its_path_are_two_commands(
    link: SuperLink, tmp_path: Path
) -> None:
    path = Path(link._environment(tmp_path)["PATH"])

    assert sorted(file.name for file in path.iterdir()) == sorted(COMMANDS)
    assert all(file.resolve().exists() for file in path.iterdir())


def test_tls_node_authentication_and_no_installation_are_always_asked_for(
    link: SuperLink,
) -> None:
    command = link._command()

    assert "--enable-supernode-auth" in command
    assert "--disable-runtime-dependency-installation" in command
    assert "--insecure" not in command
    assert command[command.index("--host") + 1] == "127.0.0.1"
    health = command[command.index("--health-server-address") + 1]
    assert health.startswith("127.0.0.1:")


@pytest.mark.parametrize("name", ["port", "admin_port", "health_port"])
def test_a_port_that_somebody_else_has_is_named(
    link: SuperLink, office: Office, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(superlink, "LONGEST_RELEASE", 0.0)
    port = getattr(office.config.address, name)

    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(FederationError, match=f"port {port} cannot be bound"),
        link.running(),
    ):
        pytest.fail("it runs")
