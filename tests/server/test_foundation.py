"""What `init` makes, and what it leaves alone."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from enrolment_kit import NOW, Applicant
from server_kit import make_office
from wire_kit import small_study

from fedcondense.config.server import load_server
from fedcondense.config.study import load_study
from fedcondense.errors import KeyFileError, SettingsError
from fedcondense.exchange.certificates import ServerTls, check_server_tls
from fedcondense.exchange.keys import SigningKey
from fedcondense.server.first_files import server_toml, study_toml
from fedcondense.server.foundation import enroll_site, found, register_of

LARGE = {"images_per_class": 200, "image": {"size": 224}, "distill": {"method": "dm"}}  # 20 MB
NAME = "consortium.example.org"
EXAMPLES = Path(__file__).parents[2] / "server"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "office" / "SERVER.toml"


def bytes_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_after_init_everything_is_there_that_a_run_needs(path: Path) -> None:
    founded = found(path, NAME)

    config = load_server(path)
    tls = ServerTls(config.tls.certificate, config.tls.key, config.tls.authority)
    assert founded.config == config
    assert check_server_tls(tls, config.address.names, now=datetime.now(UTC))
    assert founded.run_signing == SigningKey.load(config.run_signing_key).fingerprint
    assert founded.study_digest == load_study(config.study).digest
    assert register_of(config).standing(now=0.0) == {}


def test_secrets_are_readable_by_their_owner_alone(path: Path) -> None:
    keys = found(path, NAME).config.keys

    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    secret = {file.name: stat.S_IMODE(file.stat().st_mode) for file in keys.glob("*.key")}
    assert secret == {"run-signing.key": 0o600, "authority.key": 0o600, "server.key": 0o600}


def test_once_more_changes_nothing(path: Path) -> None:
    first = found(path, NAME)
    before = bytes_of(path.parent)

    again = found(path, "another.example.org")

    assert bytes_of(path.parent) == before
    assert again.made == ()
    assert (again.run_signing, again.study_digest) == (first.run_signing, first.study_digest)


def test_a_certificate_is_renewed_by_moving_its_files_away(path: Path) -> None:
    config = found(path, NAME).config
    path.write_text(path.read_text().replace(f'names = ["{NAME}"]', 'names = ["b.example.org"]'))
    for file in (config.tls.certificate, config.tls.key):
        file.unlink()

    renewed = found(path, NAME)

    tls = ServerTls(config.tls.certificate, config.tls.key, config.tls.authority)
    assert renewed.made == (config.tls.certificate,)
    assert check_server_tls(tls, ["b.example.org"], now=datetime.now(UTC))


def test_without_the_authoritys_key_nothing_is_renewed(path: Path) -> None:
    config = found(path, NAME).config
    for file in (config.tls.certificate, config.tls.key, config.keys / "authority.key"):
        file.unlink()

    with pytest.raises(KeyFileError, match=r"authority.key: no such file"):
        found(path, NAME)


def test_an_authority_of_the_consortiums_own_stays(path: Path, tmp_path: Path) -> None:
    other = found(tmp_path / "other" / "SERVER.toml", NAME).config
    keys = path.parent / "keys"
    keys.mkdir(parents=True, mode=0o700)
    for file in (other.tls.authority, other.tls.certificate, other.tls.key):
        (keys / file.name).write_bytes(file.read_bytes())

    founded = found(path, NAME)

    assert not (keys / "authority.key").exists()
    assert founded.config.tls.certificate not in founded.made


@pytest.mark.parametrize("name", ["", "a b", "https://x", "x:8444", "-x", "ä.example.org"])
def test_what_cannot_be_a_name_is_refused_before_anything_is_written(path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="cannot be the name of a server"):
        found(path, name)

    assert not path.parent.exists()


@pytest.mark.parametrize("name", ["192.0.2.7", "2001:db8::7", "localhost"])
def test_an_address_is_a_name(path: Path, name: str) -> None:
    assert found(path, name).config.address.names == (name,)


def test_the_examples_are_what_init_writes() -> None:
    assert (EXAMPLES / "server.toml").read_text() == server_toml(NAME)
    assert (EXAMPLES / "study.toml").read_text() == study_toml()


@pytest.mark.parametrize("name", ["2001:DB8:0::7", "[2001:db8::7]"])
def test_an_address_is_written_as_certificates_are_compared(path: Path, name: str) -> None:
    config = found(path, name).config

    tls = ServerTls(config.tls.certificate, config.tls.key, config.tls.authority)
    assert config.address.names == ("2001:db8::7",)
    assert config.address.listen == "::"  # 0.0.0.0 would hear nobody who uses that address
    assert config.address.shown == "[2001:db8::7]:8444"
    assert check_server_tls(tls, config.address.names, now=datetime.now(UTC))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(SettingsError) as caught:
        found(tmp_path / "file" / "SERVER.toml", NAME)

    assert caught.value.message == f"{tmp_path}/file: file exists"


def test_no_more_sites_are_enrolled_than_a_further_round_has_room_for(tmp_path: Path) -> None:
    office = make_office(tmp_path, study=small_study(rounds=2, **LARGE))
    sites = [Applicant(f"site-{number}") for number in range(4)]
    for site in sites[:3]:
        enroll_site(office.config, site.write(tmp_path / "mail"), now=NOW)

    with pytest.raises(SettingsError, match="the global set of 4 sites is above the 64 MB"):
        enroll_site(office.config, sites[3].write(tmp_path / "mail"), now=NOW)

    enroll_site(office.config, sites[0].write(tmp_path / "mail"), now=NOW)  # no site more
    office.write_study(small_study(**LARGE))
    enroll_site(office.config, sites[3].write(tmp_path / "mail"), now=NOW)
