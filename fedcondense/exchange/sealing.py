"""Sign and seal; verify, then open. One suite, no choice: nothing can be negotiated down.

HPKE (RFC 9180), base mode and single shot, with the hybrid ML-KEM-768 and X25519, HKDF-SHA256 and
AES-256-GCM; its `info` binds the manifest. Ed25519 (RFC 8032) signs manifest and ciphertext.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from fedcondense.config.study import LARGEST_CONTRIBUTION, Study
from fedcondense.errors import DescriptionRejected, ReleaseRefused
from fedcondense.exchange.approval import Approval, check_approvals
from fedcondense.exchange.contents import decode_body, encode_body
from fedcondense.exchange.contribution import (
    SITE_NAME,
    SUITE,
    VERSION,
    Manifest,
    Payload,
    Purpose,
    Released,
)
from fedcondense.exchange.keys import (
    OpeningKey,
    Recipient,
    SigningKey,
    fingerprint_digits,
    signing_fingerprint,
    verify_signature,
)
from fedcondense.exchange.rejection import Reason, demand, reject
from fedcondense.exchange.run_description import Request, RunDescription
from fedcondense.exchange.strict_json import has_shape, read_strictly
from fedcondense.exchange.terms import Terms, terms_of
from fedcondense.files.storage import canonical_json

MAGIC = b"FEDCOND1"
LARGEST_MANIFEST = 4096  # bytes
SEALING_BYTES = 1120 + 16  # encapsulated key (1,088 of ML-KEM-768, 32 of X25519) and GCM tag
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_SIGNATURE = 64
_FRAME = len(MAGIC) + 4 + 8 + _SIGNATURE  # all bytes but manifest and ciphertext
_FIELDS = {
    "body_bytes": int,
    "purpose": str,
    "recipient": str,
    "round": int,
    "run": str,
    "signing_key": str,
    "site": str,
    "study_digest": str,
    "suite": str,
    "version": int,
}


@dataclass(frozen=True)
class Expectation:
    """What a reader accepts: the study's terms, this run and round, these purposes and sites.

    `enrolled` maps the name of a site to its 32 raw public signing bytes, `officers` the names of
    those without whose data officer nothing counts to the raw public key of that officer.
    """

    terms: Terms
    description: RunDescription
    round: int
    purposes: frozenset[str]
    enrolled: Mapping[str, bytes]
    officers: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Opened:
    """One site's contribution, opened and checked."""

    site: str
    payload: Payload
    record: dict[str, Any]
    approvals: tuple[Approval, ...] = ()


@dataclass(frozen=True)
class _Parts:
    """The frame taken apart; nothing is copied but the two short parts."""

    manifest: bytes
    ciphertext: memoryview
    signature: bytes


def seal(
    released: Released,
    request: Request,
    site: str,
    study: Study,
    key: SigningKey,
    *,
    approvals: Sequence[Approval] = (),
) -> bytes:
    """Seal a released payload to the run's recipient and sign it: the bytes that leave.

    Sealing is randomised: a site that must send again sends the same bytes again. Whether an
    approval is needed is the site's policy; whose it is, the server looks at.

    Raises:
        TypeError: `released` did not pass the gate.
        ReleaseRefused: it was released for another purpose than the run's.
        DescriptionRejected: the run is of another study.
        ContributionRejected: a server would refuse it.
    """
    if type(released) is not Released:
        raise TypeError("only what the gate released can be sealed")
    description = request.description
    if released.purpose != description.purpose:
        raise ReleaseRefused(
            "the set was released for another purpose than the run's",
            hint="only a scenario can be study-only",
        )
    terms = terms_of(study)
    if description.study_digest != terms.study_digest:
        raise DescriptionRejected("the run is of another study", hint="compare the study files")
    body = encode_body(released.payload, released.record, terms, approvals)
    # what a server would refuse is not sent
    decode_body(body, released.purpose, terms, round=request.round)
    manifest = _manifest(request, site, terms, key)
    recipient = Recipient(bytes.fromhex(description.recipient)).public_key()
    ciphertext = _SUITE.encrypt(body, recipient, info=binding(manifest))
    return _frame(manifest, ciphertext, key.sign(signed_message(manifest, ciphertext)))


def read_manifest(blob: bytes) -> Manifest:
    """Who says that they sent this, before anything is verified.

    Raises:
        ContributionRejected: the frame or the manifest is malformed.
    """
    return _parse_manifest(_split(blob).manifest)


def verify(blob: bytes, expected: Expectation) -> Manifest:
    """Check all that can be checked while sealed.

    Raises:
        ContributionRejected: `reason` is the first check that failed.
    """
    parts = _split(blob)
    manifest = _parse_manifest(parts.manifest)
    _check_manifest(manifest, expected)
    demand(len(parts.ciphertext) == manifest.body_bytes + SEALING_BYTES, Reason.SIZE)
    demand(manifest.site in expected.enrolled, Reason.SITE)
    public = expected.enrolled[manifest.site]
    demand(
        _equal(manifest.signing_key, fingerprint_digits(signing_fingerprint(public))), Reason.KEY
    )
    message = signed_message(parts.manifest, parts.ciphertext)
    demand(verify_signature(public, parts.signature, message), Reason.SIGNATURE)
    return manifest


def open_sealed(blob: bytes, expected: Expectation, key: OpeningKey) -> Opened:
    """Verify everything again from the bytes, then open and check what is inside.

    Raises:
        ContributionRejected: `reason` is the first check that failed.
    """
    manifest = verify(blob, expected)
    parts = _split(blob)
    try:
        body = _SUITE.decrypt(parts.ciphertext, key.private_key(), info=binding(parts.manifest))
    except (InvalidTag, ValueError):
        reject(Reason.DECRYPTION)
    opened = decode_body(body, _purpose(manifest.purpose), expected.terms, round=manifest.round)
    officer = expected.officers.get(manifest.site)
    check_approvals(opened.approvals, opened.payload.sha256, officer)
    return Opened(manifest.site, opened.payload, opened.record, opened.approvals)


def binding(manifest: bytes) -> bytes:
    """HPKE's `info`: a ciphertext opens under the manifest that it was sealed with, or not."""
    return b"fedcondense/v1\0" + hashlib.sha256(manifest).digest()


def signed_message(manifest: bytes, ciphertext: bytes | memoryview) -> bytes:
    """What the site's signature covers."""
    digests = hashlib.sha256(manifest).digest() + hashlib.sha256(ciphertext).digest()
    return b"fedcondense/sig/v1\0" + digests


def _manifest(request: Request, site: str, terms: Terms, key: SigningKey) -> bytes:
    description = request.description
    manifest = Manifest(
        version=VERSION,
        suite=SUITE,
        purpose=description.purpose,
        study_digest=terms.study_digest,
        run=description.run,
        round=request.round,
        site=site,
        signing_key=fingerprint_digits(key.fingerprint),
        recipient=_recipient_digits(description),
        body_bytes=terms.body_bytes,
    )
    return canonical_json(asdict(manifest))


def _frame(manifest: bytes, ciphertext: bytes, signature: bytes) -> bytes:
    lengths = len(manifest).to_bytes(4, "little"), len(ciphertext).to_bytes(8, "little")
    return b"".join((MAGIC, lengths[0], manifest, lengths[1], ciphertext, signature))


def _split(blob: bytes) -> _Parts:
    """Lengths are Python integers: none of them overflows, and none is believed."""
    demand(_FRAME + SEALING_BYTES < len(blob) <= LARGEST_CONTRIBUTION, Reason.LENGTH)
    demand(blob[:8] == MAGIC, Reason.MAGIC)
    length = int.from_bytes(blob[8:12], "little")
    demand(length <= LARGEST_MANIFEST, Reason.MANIFEST)
    start = 12 + length + 8
    sealed = int.from_bytes(blob[start - 8 : start], "little")
    demand(_FRAME + length + sealed == len(blob), Reason.LENGTH)
    return _Parts(
        manifest=blob[12 : 12 + length],
        ciphertext=memoryview(blob)[start:-_SIGNATURE],
        signature=blob[-_SIGNATURE:],
    )


def _parse_manifest(data: bytes) -> Manifest:
    try:
        values = read_strictly(data)
    except ValueError:
        reject(Reason.MANIFEST)
    demand(has_shape(values, _FIELDS), Reason.MANIFEST)
    digests = ("study_digest", "signing_key", "recipient")
    demand(all(re.fullmatch("[0-9a-f]{64}", values[name]) for name in digests), Reason.MANIFEST)
    demand(re.fullmatch("[0-9a-f]{32}", values["run"]), Reason.MANIFEST)
    demand(SITE_NAME.fullmatch(values["site"]), Reason.MANIFEST)
    return Manifest(**values)


def _check_manifest(manifest: Manifest, expected: Expectation) -> None:
    description = expected.description
    demand(manifest.version == VERSION, Reason.VERSION)
    demand(manifest.suite == SUITE, Reason.SUITE)
    demand(_equal(manifest.study_digest, expected.terms.study_digest), Reason.STUDY)
    demand(_equal(manifest.run, description.run), Reason.RUN)
    demand(manifest.round == expected.round, Reason.ROUND)
    demand(manifest.purpose in expected.purposes, Reason.PURPOSE)
    demand(_equal(manifest.recipient, _recipient_digits(description)), Reason.RECIPIENT)
    demand(manifest.body_bytes == expected.terms.body_bytes, Reason.SIZE)


def _recipient_digits(description: RunDescription) -> str:
    return fingerprint_digits(Recipient(bytes.fromhex(description.recipient)).fingerprint)


def _purpose(word: str) -> Purpose:
    return "simulation" if word == "simulation" else "release"


def _equal(digest: str, other: str) -> bool:
    return hmac.compare_digest(digest, other)
