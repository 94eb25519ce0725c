"""What a run is, signed by the server operator: a site seals to no other key than it names."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from fedcondense.config.study import Study
from fedcondense.errors import DescriptionRejected
from fedcondense.exchange.contribution import VERSION, Purpose
from fedcondense.exchange.keys import (
    RECIPIENT_BYTES,
    Recipient,
    SigningKey,
    fingerprint_digits,
    signing_fingerprint,
    verify_signature,
)
from fedcondense.exchange.round_result import Given
from fedcondense.exchange.strict_json import has_shape, read_strictly
from fedcondense.files.storage import canonical_json

LARGEST_DESCRIPTION = 8 * 1024  # bytes
_ENVELOPE = {"description": dict, "signature": str, "signing_key": str}
_FIELDS = {
    "deadline": int,
    "purpose": str,
    "quorum": int,
    "recipient": str,
    "run": str,
    "study_digest": str,
    "version": int,
}


@dataclass(frozen=True)
class RunDescription:
    """One execution of a study.

    `run` is 128 random bits in hex, `recipient` the raw public opening key in hex, `deadline` in
    seconds since 1970 UTC; a contribution of another `purpose` is refused.
    """

    study_digest: str
    run: str
    recipient: str
    quorum: int
    deadline: int
    purpose: Purpose


@dataclass(frozen=True)
class Request:
    """What the server asks of a site: a contribution to this round of this run.

    `given` is what a later round begins with: the global set of the round before, verified.
    """

    description: RunDescription
    round: int
    given: Given | None = field(default=None, compare=False, repr=False)


def sign_description(description: RunDescription, key: SigningKey) -> bytes:
    """Canonical JSON of the description, the run-signing public key, and the signature."""
    values = {**asdict(description), "version": VERSION}
    envelope = {
        "description": values,
        "signature": key.sign(_message(values)).hex(),
        "signing_key": key.public.hex(),
    }
    return canonical_json(envelope)


def read_description(data: bytes) -> tuple[RunDescription, bytes]:
    """The description and the public key that signed it, whoever that is.

    For the server's own files; a site asks `verify_description`.

    Raises:
        DescriptionRejected: it is malformed, or its signature is wrong.
    """
    try:
        envelope = read_strictly(data) if len(data) <= LARGEST_DESCRIPTION else None
    except ValueError:
        envelope = None
    if envelope is None or not _well_formed(envelope):
        raise _rejected("it is malformed")
    values = dict(envelope["description"])
    public, signature = (bytes.fromhex(envelope[key]) for key in ("signing_key", "signature"))
    if not verify_signature(public, signature, _message(values)):
        raise _rejected("its signature is wrong")
    if values.pop("version") != VERSION:
        raise _rejected("its version is unknown")
    return RunDescription(**values), public


def verify_description(data: bytes, *, pinned: str, study: Study) -> RunDescription:
    """The description, if the pinned key signed it and it is of the site's own study.

    Args:
        data: what the server sent.
        pinned: fingerprint of the run-signing key, learned out of band.
        study: the study that the site agreed to.

    Raises:
        DescriptionRejected: it is malformed, signed by another key, or of another study or quorum.
    """
    description, public = read_description(data)
    signer = fingerprint_digits(signing_fingerprint(public))
    expected = fingerprint_digits(pinned).encode("utf-8", "replace")
    if not hmac.compare_digest(signer.encode("ascii"), expected):
        raise _rejected("another key signed it")
    if not hmac.compare_digest(description.study_digest, study.digest):
        raise _rejected("it is of another study")
    if description.quorum != study.quorum:
        raise _rejected("its quorum is not the study's")
    return description


def _well_formed(envelope: dict[str, Any]) -> bool:
    if not has_shape(envelope, _ENVELOPE) or not has_shape(envelope["description"], _FIELDS):
        return False
    values = envelope["description"]
    return (
        _is_hex(envelope["signing_key"], 32)
        and _is_hex(envelope["signature"], 64)
        and _is_hex(values["run"], 16)
        and _is_hex(values["study_digest"], 32)
        and _is_key(values["recipient"])
        and values["purpose"] in get_args(Purpose)
        and values["quorum"] >= 1
        and values["deadline"] >= 0
    )


def _is_hex(text: str, length: int) -> bool:
    return re.fullmatch(f"[0-9a-f]{{{2 * length}}}", text) is not None


def _is_key(text: str) -> bool:
    if not _is_hex(text, RECIPIENT_BYTES):
        return False
    try:
        Recipient(bytes.fromhex(text)).public_key()
    except ValueError:
        return False
    return True


def _message(values: dict[str, Any]) -> bytes:
    return b"fedcondense/run/v1\0" + hashlib.sha256(canonical_json(values)).digest()


def _rejected(why: str) -> DescriptionRejected:
    return DescriptionRejected(
        f"the run description is refused: {why}",
        hint="compare study file and fingerprint with the server operator, by voice or on paper",
    )
