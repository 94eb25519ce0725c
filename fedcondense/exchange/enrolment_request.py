"""What a site hands to the server operator to be enrolled: its public keys, signed by itself.

It travels outside the protocol, by mail or on a stick, and is no secret. The signature proves that
the site holds its signing key and that no byte was lost; whose key it is, only the fingerprints
prove, compared by voice or on paper.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from fedcondense.errors import EnrolmentRejected
from fedcondense.exchange.contribution import SITE_NAME
from fedcondense.exchange.keys import (
    SigningKey,
    fingerprint_digits,
    signing_fingerprint,
    verify_signature,
)
from fedcondense.exchange.node_key import is_node_key, node_fingerprint
from fedcondense.exchange.strict_json import has_shape, read_strictly
from fedcondense.files.storage import canonical_json, write_exclusively

ENROLMENT_VERSION = 1
LARGEST_ENROLMENT = 4 * 1024  # bytes
_KEY = r"[0-9a-f]{64}"
_ENVELOPE = {"request": dict, "signature": str}
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "expires": int,
    "fingerprint": str,
    "node_key": str,
    "officer_key": (str, type(None)),
    "signing_key": str,
    "site": str,
    "version": int,
}


@dataclass(frozen=True)
class EnrolmentRequest:
    """The public keys of a site that asks to be enrolled.

    `signing_key` and `officer_key` are raw Ed25519 public keys in hex, `node_key` is one OpenSSH
    line (ECDSA P-384); none of them is accepted after `expires`, in seconds since 1970 UTC.
    """

    site: str
    signing_key: str
    node_key: str
    expires: int
    officer_key: str | None = None

    @property
    def signing_fingerprint(self) -> str:
        """Of the key that seals contributions."""
        return signing_fingerprint(bytes.fromhex(self.signing_key))

    @property
    def node_fingerprint(self) -> str:
        """Of the key that opens the connection."""
        return node_fingerprint(self.node_key)

    @property
    def officer_fingerprint(self) -> str | None:
        """Of the data officer's key, where there is one."""
        return signing_fingerprint(bytes.fromhex(self.officer_key)) if self.officer_key else None


def sign_enrolment(request: EnrolmentRequest, key: SigningKey) -> bytes:
    """Canonical JSON of the request and its signature, with a line feed at its end."""
    values = {
        **asdict(request),
        "fingerprint": request.signing_fingerprint,
        "version": ENROLMENT_VERSION,
    }
    return (
        canonical_json({"request": values, "signature": key.sign(_message(values)).hex()}) + b"\n"
    )


def write_enrolment(path: Path, request: EnrolmentRequest, key: SigningKey) -> None:
    """Write a new request file; it holds no secret.

    Raises:
        FileExistsError: `path` exists already; it is left as it is.
    """
    write_exclusively(path, sign_enrolment(request, key), mode=0o644)


def read_enrolment(path: Path) -> EnrolmentRequest:
    """Read a request file, of which no more than `LARGEST_ENROLMENT` bytes are looked at.

    Raises:
        EnrolmentRejected: it cannot be read, is malformed, or its signature is wrong.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_ENROLMENT + 1)
    except OSError as error:
        _reject((error.strerror or "unreadable").lower())
    return parse_enrolment(data)


def parse_enrolment(data: bytes) -> EnrolmentRequest:
    """The request that `data` holds; white space at its end is a mailer's, and passed over.

    Raises:
        EnrolmentRejected: it is malformed, or its signature is wrong.
    """
    if len(data) > LARGEST_ENROLMENT:
        _reject("it is too long")
    try:
        envelope = read_strictly(data.rstrip(b"\r\n "))
    except ValueError:
        _reject("it is malformed")
    if not _well_formed(envelope):
        _reject("it is malformed")
    values = dict(envelope["request"])
    signature, public = (
        bytes.fromhex(text) for text in (envelope["signature"], values["signing_key"])
    )
    if not verify_signature(public, signature, _message(values)):
        _reject("its signature is wrong")
    if values.pop("version") != ENROLMENT_VERSION:
        _reject("its version is unknown")
    shown, request = values.pop("fingerprint"), EnrolmentRequest(**values)
    if shown != request.signing_fingerprint:
        _reject("its fingerprint is not that of its key")
    return request


def _well_formed(envelope: dict[str, Any]) -> bool:
    if not has_shape(envelope, _ENVELOPE) or not has_shape(envelope["request"], _FIELDS):
        return False
    values = envelope["request"]
    return (
        SITE_NAME.fullmatch(values["site"]) is not None
        and re.fullmatch("[0-9a-f]{128}", envelope["signature"]) is not None
        and re.fullmatch(_KEY, values["signing_key"]) is not None
        and re.fullmatch(_KEY, values["officer_key"] or "0" * 64) is not None
        and values["officer_key"] != ""
        and re.fullmatch(_KEY, fingerprint_digits(values["fingerprint"])) is not None
        and is_node_key(values["node_key"])
        and values["expires"] >= 0
    )


def _message(values: dict[str, Any]) -> bytes:
    return b"fedcondense/enrolment/v1\0" + hashlib.sha256(canonical_json(values)).digest()


def _reject(why: str) -> NoReturn:
    raise EnrolmentRejected(
        f"the enrolment request is refused: {why}",
        hint="ask the site for the file that `fedcondense-site init` wrote, unchanged",
    )
