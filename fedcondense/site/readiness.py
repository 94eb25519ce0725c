"""What must be in order before a site takes part; each check says what it found."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from fedcondense.config.site import ServerAddress, SiteConfig
from fedcondense.config.study import Study, load_study
from fedcondense.errors import KeyFileError, ReleaseRefused, SettingsError
from fedcondense.exchange.certificates import read_certificate
from fedcondense.exchange.contribution import Provenance
from fedcondense.exchange.keys import SigningKey, fingerprint_digits, signing_fingerprint
from fedcondense.exchange.node_key import NodeKey
from fedcondense.exchange.release_record import studied_refusals
from fedcondense.site.limits import check_study

UNKNOWN_DIGEST = "0" * 64  # what `init` writes where the server operator's answer is awaited
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def server_of(site: SiteConfig) -> ServerAddress:
    """Whom the site connects to.

    Raises:
        SettingsError: SITE.toml names no server, or its authority is missing.
        KeyFileError: the authority's file holds no certificate.
    """
    if site.server is None:
        raise SettingsError(
            "site.toml has no [server]", hint="add address and authority, as the operator gave them"
        )
    authority = site.server.authority
    if not authority.is_file():
        raise SettingsError(
            f"{authority.name}: no such file",
            hint="put the authority's certificate there, as the server operator gave it",
        )
    read_certificate(authority)
    return site.server


def agreed_study(site: SiteConfig) -> Study:
    """The study that the site agreed to.

    Raises:
        SettingsError: the study file is missing, wrong, another one than SITE.toml pins, or asks
            for more than the site's limits allow.
    """
    study = load_study(site.study)
    if study.digest != site.study_digest:
        raise SettingsError(
            f"{site.study.name} has the digest {study.digest}, site.toml pins another",
            hint="compare the digest with the server operator, by voice or on paper, and write "
            "it into study_digest",
        )
    check_study(site.limits, study, round_number=1)
    return study


def releasable_study(site: SiteConfig) -> Study:
    """The agreed study, of which a set can pass the gate at all: before anything is read or paid.

    Raises:
        ReleaseRefused: what the study asks for is refused whatever comes of it.
        SettingsError: as `agreed_study`.
    """
    study = agreed_study(site)
    if refusals := studied_refusals(Provenance.of(study, ())):
        raise ReleaseRefused(
            f"the gate would refuse every set of this study: {', '.join(refusals)}",
            hint="no image was read; ask the server operator for a study that starts from noise",
        )
    return study


def pinned_fingerprint(site: SiteConfig) -> str:
    """The fingerprint that the server's run descriptions must have, in groups of four digits.

    Raises:
        SettingsError: it is not 64 hex digits, or still the one that `init` wrote.
    """
    digits = fingerprint_digits(site.run_signing_fingerprint)
    if not re.fullmatch("[0-9a-f]{64}", digits) or digits == UNKNOWN_DIGEST:
        raise SettingsError(
            "run_signing_fingerprint: not a fingerprint",
            hint="ask the server operator for that of the run-signing key, by voice or on paper",
        )
    return " ".join(re.findall("....", digits))


def own_keys(site: SiteConfig) -> tuple[SigningKey, NodeKey]:
    """The keys of the site.

    Raises:
        KeyFileError: one is missing, malformed, or others can read it.
    """
    return SigningKey.load(site.signing_key), NodeKey.load(site.node_key)


def officer_of(site: SiteConfig) -> str | None:
    """The fingerprint of the data officer whose approval is needed, or None if none is.

    Raises:
        SettingsError: an approval is needed, and no officer is named.
        KeyFileError: the officer's key is here, and is not the officer's.
    """
    policy = site.release
    if not policy.needs_approval:
        return None
    digits = fingerprint_digits(policy.officer or "")
    if not re.fullmatch("[0-9a-f]{64}", digits):
        raise SettingsError(
            "release.officer: not a fingerprint", hint="write that of the data officer's key there"
        )
    if policy.officer_key is not None and policy.officer_key.exists():
        key = SigningKey.load(policy.officer_key)
        if fingerprint_digits(signing_fingerprint(key.public)) != digits:
            raise KeyFileError(
                f"{policy.officer_key.name}: not the key of release.officer",
                hint="compare with the fingerprint that `fedcondense-site init` printed",
            )
    return " ".join(re.findall("....", digits))


def private_folder(path: Path) -> Path:
    """A folder of this user alone; made if it does not exist.

    Raises:
        SettingsError: others have access to it, this user has none, or it cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except OSError as error:
        raise SettingsError(
            f"{path}: {(error.strerror or 'cannot be made').lower()}",
            hint="name a folder in `state` that this user can write",
        ) from None
    if found.st_uid != os.getuid():
        raise SettingsError(
            f"{path}: belongs to another user",
            hint="give the command as the user of the site, or chown the folder with all in it",
        )
    if found.st_mode & _OTHERS:
        raise SettingsError(f"{path}: others can look into it", hint=f"chmod 700 {path}")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise SettingsError(
            f"{path}: cannot be written",
            hint=f"chmod 700 {path}; or its file system is read-only",
        )
    return path
