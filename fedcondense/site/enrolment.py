"""The first day of a site: its keys, a commented SITE.toml, and the request to be enrolled.

Nothing that exists is ever overwritten: what is there stays, what is missing is made.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fedcondense.config.site import SiteConfig, load_site
from fedcondense.errors import SettingsError
from fedcondense.exchange.contribution import SITE_NAME
from fedcondense.exchange.enrolment_request import EnrolmentRequest, write_enrolment
from fedcondense.exchange.keys import SigningKey
from fedcondense.exchange.node_key import NodeKey
from fedcondense.files.storage import write_exclusively, written_for_an_operator
from fedcondense.site.readiness import private_folder
from fedcondense.site.site_toml import site_toml

Key = TypeVar("Key", SigningKey, NodeKey)

VALID = 366 * 24 * 3600  # seconds from today that keys are accepted for
REQUEST = "enrolment-request.json"


@dataclass(frozen=True)
class Enrolment:
    """What `init` made or found.

    Fingerprints are read out over the telephone; `expires` is in seconds since 1970 UTC.
    """

    name: str
    settings: Path
    request: Path
    signing: str
    node: str
    officer: str | None
    expires: int


def init_site(path: Path, name: str | None = None, officer_key: Path | None = None) -> Enrolment:
    """Make what a new site needs, beside the SITE.toml at `path`.

    Args:
        path: where SITE.toml is, or will be written.
        name: what the site will be called; that of the folder if left out.
        officer_key: where the data officer's key is, or will be written, if there is one: best on
            the officer's own stick.

    Raises:
        SettingsError: the name cannot be used, SITE.toml is wrong, there is a request already, or
            the folder cannot be written.
        KeyFileError: a key that exists cannot be used.
    """
    with written_for_an_operator(path):
        return _init_site(path, name, officer_key)


def _init_site(path: Path, name: str | None, officer_key: Path | None) -> Enrolment:
    folder = path.absolute().parent
    request = folder / REQUEST
    if request.exists():
        raise SettingsError(
            f"{request.name}: there is one already",
            hint="hand it to the server operator, or move it away to make another",
        )
    if not path.exists():
        text = site_toml(_usable(name or folder.name.lower()), seed=secrets.randbelow(2**63))
        write_exclusively(path, text.encode(), mode=0o600)
    site = load_site(path)
    if name is not None and name != site.name:
        raise SettingsError(
            f"{path.name} is there already, of the site {site.name}",
            hint="leave the name out, or change it in that file first",
        )
    return _enrol(path, site, request, officer_key or site.release.officer_key)


def _enrol(path: Path, site: SiteConfig, request: Path, officer_key: Path | None) -> Enrolment:
    private_folder(site.state)
    signing = _signing_key(site.signing_key)
    node = _made_once(site.node_key, NodeKey.load, NodeKey.generate)
    officer = _signing_key(officer_key) if officer_key is not None else None
    expires = int(time.time()) + VALID
    asked = EnrolmentRequest(
        site=site.name,
        signing_key=signing.public.hex(),
        node_key=node.public,
        expires=expires,
        officer_key=officer.public.hex() if officer else None,
    )
    write_enrolment(request, asked, signing)
    return Enrolment(
        name=site.name,
        settings=path,
        request=request,
        signing=signing.fingerprint,
        node=node.fingerprint,
        officer=officer.fingerprint if officer else None,
        expires=expires,
    )


def _signing_key(path: Path) -> SigningKey:
    return _made_once(path, SigningKey.load, SigningKey.generate)


def _made_once(path: Path, load: Callable[[Path], Key], make: Callable[[], Key]) -> Key:
    if path.exists():
        return load(path)
    key = make()
    key.save(path)
    return key


def _usable(name: str) -> str:
    if not SITE_NAME.fullmatch(name):
        raise SettingsError(
            f"{name!r} cannot be the name of a site",
            hint="give one of small letters, digits, - and _, at most 40, as the second argument",
        )
    return name
