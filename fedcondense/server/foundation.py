"""The first day of a consortium: settings, keys, certificate, and an empty allow-list.

Nothing that exists is ever overwritten: what is there stays, what is missing is made. So the same
call renews a certificate whose two files were moved away.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedcondense.config.server import ServerConfig, load_server
from fedcondense.errors import SettingsError
from fedcondense.exchange.certificates import (
    Authority,
    ServerTls,
    certificate_fingerprint,
    create_authority,
    issue_certificate,
)
from fedcondense.exchange.enrolment_request import EnrolmentRequest, read_enrolment
from fedcondense.exchange.keys import SigningKey
from fedcondense.files.storage import write_exclusively, written_for_an_operator
from fedcondense.server.current_run import demand_room, study_of
from fedcondense.server.enrolment import Register
from fedcondense.server.first_files import server_toml, study_toml

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


@dataclass(frozen=True)
class Foundation:
    """What `init` made or found; sites pin the digest and the fingerprint."""

    config: ServerConfig
    made: tuple[Path, ...]
    study_digest: str
    run_signing: str
    authority: str


def found(path: Path, name: str) -> Foundation:
    """Make what a new server needs, beside the SERVER.toml at `path`.

    Args:
        path: where SERVER.toml is, or will be written.
        name: by which sites find the server; not looked at where SERVER.toml exists.

    Raises:
        SettingsError: the name cannot be used, SERVER.toml or the study is wrong, or the folder
            cannot be written.
        KeyFileError: a key or certificate that exists cannot be used.
    """
    with written_for_an_operator(path):
        return _found(path, name)


def _found(path: Path, name: str) -> Foundation:
    made: list[Path] = []
    if not path.exists():
        _write(path, server_toml(_usable(name)), made)
    config = load_server(path)
    if not config.study.exists():
        _write(config.study, study_toml(), made)
    digest = study_of(config).digest
    config.keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    Register(config.enrolled, config.revoked).create()
    _make(config.run_signing_key, lambda: SigningKey.generate().save(config.run_signing_key), made)
    _certify(config, made)
    return Foundation(
        config=config,
        made=tuple(made),
        study_digest=digest,
        run_signing=SigningKey.load(config.run_signing_key).fingerprint,
        authority=certificate_fingerprint(config.tls.authority),
    )


def register_of(config: ServerConfig) -> Register:
    """The allow-list of a server."""
    return Register(config.enrolled, config.revoked)


def enroll_site(config: ServerConfig, request: Path, *, now: float) -> EnrolmentRequest:
    """Put a site on the allow-list, if the server's study has room for one more.

    Raises:
        SettingsError: it has not, or the file is not a study.
        EnrolmentRejected: the request cannot be accepted.
    """
    register = register_of(config)
    sites = register.active(now=now).keys() | {read_enrolment(request).site}
    demand_room(study_of(config), len(sites))
    return register.enroll(request, now=now)


def _certify(config: ServerConfig, made: list[Path]) -> None:
    """A consortium with an authority of its own has put its files there, and they stay."""
    authority = Authority(config.tls.authority, config.keys / "authority.key")
    files = ServerTls(config.tls.certificate, config.tls.key, config.tls.authority)
    name = config.address.names[0]
    _make(config.tls.authority, lambda: create_authority(authority, name), made)
    names = config.address.names
    _make(config.tls.certificate, lambda: issue_certificate(files, authority, names), made)


def _make(path: Path, make: Callable[[], None], made: list[Path]) -> None:
    if not path.exists():
        make()
        made.append(path)


def _write(path: Path, text: str, made: list[Path]) -> None:
    write_exclusively(path, text.encode("utf-8"), mode=0o644)
    made.append(path)


def _usable(name: str) -> str:
    """A name, or an address: in its shortest form, without the brackets of one before a port."""
    host = name.removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        if not _NAME.fullmatch(name):
            raise SettingsError(
                f"{name!r} cannot be the name of a server",
                hint="give the name or address that sites use, without a port",
            ) from None
    return name
