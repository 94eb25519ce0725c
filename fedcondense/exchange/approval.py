"""The data officer's approval: a signature over the digest of the very payload that would leave.

The officer's key is another one than the site's: whoever can seal cannot approve. An approval says
nothing of a run, so that a set which was approved once can be sealed to another run.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fedcondense.exchange.keys import (
    SigningKey,
    fingerprint_digits,
    signing_fingerprint,
    verify_signature,
)
from fedcondense.exchange.rejection import Reason, demand
from fedcondense.exchange.strict_json import has_shape

MOST_APPROVALS = 2
_SHAPE = {"fingerprint": str, "signature": str}


@dataclass(frozen=True)
class Approval:
    """Whose key signed (64 hex digits of its fingerprint), and the signature (128 hex digits)."""

    fingerprint: str
    signature: str


def approve(payload_sha256: str, key: SigningKey) -> Approval:
    """Sign the payload of this digest (64 hex digits) with the officer's key."""
    signature = key.sign(_message(payload_sha256))
    return Approval(fingerprint_digits(key.fingerprint), signature.hex())


def is_approved(approvals: Sequence[Approval], payload_sha256: str, officer: bytes) -> bool:
    """Whether one of `approvals` is this officer's (raw public key) over this payload."""
    return any(_is_by(approval, payload_sha256, officer) for approval in approvals)


def write_approvals(approvals: Sequence[Approval]) -> list[dict[str, str]]:
    """As they stand in the contents of a contribution."""
    return [asdict(approval) for approval in approvals]


def read_approvals(values: list[Any]) -> tuple[Approval, ...]:
    """At most `MOST_APPROVALS`, each well-formed and of another key; whose is not looked at.

    Raises:
        ContributionRejected: `approvals`.
    """
    demand(len(values) <= MOST_APPROVALS, Reason.APPROVALS)
    demand(all(_is_well_formed(value) for value in values), Reason.APPROVALS)
    demand(len({value["fingerprint"] for value in values}) == len(values), Reason.APPROVALS)
    return tuple(Approval(**value) for value in values)


def check_approvals(
    approvals: Sequence[Approval], payload_sha256: str, officer: bytes | None
) -> None:
    """Demand the approval of the enrolled officer over this payload, and no other.

    A site that was enrolled without an officer has nobody whose approval could be known.

    Raises:
        ContributionRejected: `approvals`.
    """
    if officer is None:
        demand(not approvals, Reason.APPROVALS)
        return
    demand(approvals, Reason.APPROVALS)
    known = all(_is_by(approval, payload_sha256, officer) for approval in approvals)
    demand(known, Reason.APPROVALS)


def _is_by(approval: Approval, payload_sha256: str, officer: bytes) -> bool:
    named = fingerprint_digits(signing_fingerprint(officer))
    return hmac.compare_digest(approval.fingerprint, named) and verify_signature(
        officer, bytes.fromhex(approval.signature), _message(payload_sha256)
    )


def _is_well_formed(value: object) -> bool:
    return (
        has_shape(value, _SHAPE)
        and re.fullmatch("[0-9a-f]{64}", value["fingerprint"]) is not None  # type: ignore[index]
        and re.fullmatch("[0-9a-f]{128}", value["signature"]) is not None  # type: ignore[index]
    )


def _message(payload_sha256: str) -> bytes:
    return b"fedcondense/approval/v1\0" + bytes.fromhex(payload_sha256)
