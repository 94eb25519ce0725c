"""What a SERVER.toml may say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli_w

from fedcondense.config.loading import parse_settings
from fedcondense.config.server import ServerConfig, load_server, seconds_of
from fedcondense.errors import SettingsError

SMALLEST: dict[str, Any] = {
    "address": {"names": ["consortium.example.org", "192.0.2.7", "2001:db8::7"]},
    "evaluation": {"kind": "folder", "path": "evaluation"},
}


def config(**changes: Any) -> ServerConfig:
    return parse_settings(ServerConfig, SMALLEST | changes, "SERVER.toml")


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "SERVER.toml"
    path.write_text(tomli_w.dumps(SMALLEST | changes))
    return path


def test_names_and_evaluation_images_are_all_that_must_be_said():
    server = config()

    assert (server.address.port, server.address.listen) == (8444, "0.0.0.0")
    assert seconds_of(server.time.deadline) == 72 * 3600
    assert seconds_of(server.time.joining) == 1800
    assert (server.limits.attempts, server.limits.stored_megabytes) == (5, 2048)


def test_every_path_is_relative_to_the_folder_of_the_file(tmp_path):
    server = load_server(written(tmp_path, runs="/srv/runs", revoked="../revoked.jsonl"))

    assert server.study == tmp_path / "STUDY.toml"
    assert server.tls.authority == tmp_path / "keys" / "authority.pem"
    assert server.evaluation.path == tmp_path / "evaluation"
    assert server.runs == Path("/srv/runs")
    assert server.revoked == tmp_path / ".." / "revoked.jsonl"
    assert server.run_signing_key == tmp_path / "keys" / "run-signing.key"
    assert server.opening_key("ab" * 16) == tmp_path / "keys" / f"opening-{'ab' * 16}.key"


def test_it_does_not_matter_where_the_command_is_given(tmp_path, monkeypatch):
    written(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    assert load_server(Path("../SERVER.toml")).keys.resolve() == tmp_path / "keys"


@pytest.mark.parametrize(
    ("span", "seconds"), [("1 s", 1), ("90 min", 5400), ("72 h", 259_200), ("14 d", 1_209_600)]
)
def test_a_span_is_a_number_and_its_unit(span, seconds):
    assert seconds_of(span) == seconds


@pytest.mark.parametrize("span", ["72", "72h", "0 h", "-1 h", "1.5 h", "two days", 72])
def test_no_other_span_is_understood(span):
    with pytest.raises(SettingsError, match=r"time.deadline"):
        config(time={"deadline": span})


def test_nobody_is_waited_for_longer_than_the_deadline():
    with pytest.raises(SettingsError, match="time: joining is not longer than deadline"):
        config(time={"deadline": "10 min", "joining": "11 min"})


@pytest.mark.parametrize("other", ["admin_port", "health_port"])
def test_ports_differ(other):
    with pytest.raises(SettingsError, match="address: port, admin_port and health_port differ"):
        config(address={"names": ["a.example.org"], other: 8444})


@pytest.mark.parametrize("name", ["a.example.org:8444", "192.0.2.7:8444", "::zz"])
def test_a_name_has_no_port(name):
    with pytest.raises(SettingsError, match=f"address: {name} is no name or address"):
        config(address={"names": [name]})


@pytest.mark.parametrize("name", ["https://a.example.org", "", "-a", "a b", "[::1]"])
def test_a_name_is_no_address_of_a_page(name):
    with pytest.raises(SettingsError, match=r"address.names.0: String should match"):
        config(address={"names": [name]})


@pytest.mark.parametrize("key", ["keys", "enrolled", "revoked"])
def test_what_is_secret_or_must_last_is_not_kept_among_runs(key):
    with pytest.raises(SettingsError, match=f"{key}: not inside runs"):
        config(**{key: f"runs/{key}"})


def test_no_secret_stands_in_the_file():
    with pytest.raises(SettingsError, match="password: Extra inputs are not permitted"):
        config(password="hunter2")


@pytest.mark.parametrize(
    ("listen", "nearest"),
    [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("192.0.2.7", "192.0.2.7")],
)
def test_the_public_port_is_reached_from_its_own_machine(listen, nearest):
    server = config(address={"names": ["a.example.org"], "listen": listen})

    assert server.address.nearest == nearest


def test_addresses_are_kept_in_the_form_that_certificates_have():
    server = config(address={"names": ["2001:DB8::0:7", "A.example.org"], "listen": "0::0"})

    assert server.address.names == ("2001:db8::7", "A.example.org")
    assert server.address.listen == "::"
