"""Why received bytes are refused: one word each, from a closed list."""

from __future__ import annotations

from enum import StrEnum
from typing import NoReturn

from fedcondense.errors import ContributionRejected


class Reason(StrEnum):
    """The closed list of docs/ref-contribution-format.md, in the order of the checks."""

    LENGTH = "length"
    MAGIC = "magic"
    MANIFEST = "manifest"
    VERSION = "version"
    SUITE = "suite"
    STUDY = "study"
    RUN = "run"
    ROUND = "round"
    PURPOSE = "purpose"
    RECIPIENT = "recipient"
    SIZE = "size"
    SITE = "site"
    KEY = "key"
    SIGNATURE = "signature"
    ATTEMPTS = "attempts"
    FULL = "full"
    REPLAYED = "replayed"
    DECRYPTION = "decryption"
    CONTENTS = "contents"
    DTYPE = "dtype"
    SHAPE = "shape"
    SCALE = "scale"
    SOFT = "soft"
    METHOD = "method"
    PARTITION = "partition"
    START = "start"
    RATE = "rate"
    RECIPE = "recipe"
    PADDING = "padding"
    LABELS = "labels"
    PIXELS = "pixels"
    DIGEST = "digest"
    RECORD = "record"
    APPROVALS = "approvals"
    DUPLICATE = "duplicate"


def reject(reason: Reason) -> NoReturn:
    """Refuse the bytes for `reason`.

    Raises:
        ContributionRejected: always.
    """
    raise ContributionRejected(reason.value) from None


def demand(holds: object, reason: Reason) -> None:
    """Refuse the bytes for `reason` unless `holds` is true.

    Raises:
        ContributionRejected: `holds` is false.
    """
    if not holds:
        reject(reason)
