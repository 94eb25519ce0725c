"""What a round gave, signed by the server operator: the digest of its global set, and its scores.

A site begins a further round with no other set than one whose digest the pinned key has signed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from fedcondense.config.study import LARGEST_GLOBAL_SET, Study
from fedcondense.errors import DescriptionRejected
from fedcondense.exchange.keys import (
    SigningKey,
    fingerprint_digits,
    signing_fingerprint,
    verify_signature,
)
from fedcondense.exchange.shared_set import SharedSet
from fedcondense.exchange.soft_labels import are_probabilities, soft_array
from fedcondense.exchange.strict_json import has_shape, read_strictly
from fedcondense.exchange.terms import decimal_number, decimal_text, rate_number, rate_text
from fedcondense.files.storage import canonical_json

VERSION = 1
LARGEST_RESULT = 8 * 1024  # bytes
SCORES = ("auroc", "balanced_accuracy")  # those of a report that sites are told
_ENVELOPE = {"result": dict, "signature": str, "signing_key": str}
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "images": int,
    "round": int,
    "run": str,
    "scores": dict,
    "set_sha256": str,
    "student_lr": (str, type(None)),
    "study_digest": str,
    "version": int,
}
_INTERVAL = {"high": str, "low": str, "mean": str}

Intervals = dict[str, dict[str, str]]


@dataclass(frozen=True)
class RoundResult:
    """What one round of one run gave.

    `images` is the number of synthetic images in the global set whose digest is `set_sha256`,
    `student_lr` the step size learned with them, as a decimal string. `scores` holds each of
    `SCORES` as decimal strings `mean`, `low`, `high`: classifiers trained on the set alone, tested
    on the server's own images.
    """

    study_digest: str
    run: str
    round: int
    set_sha256: str
    images: int
    student_lr: str | None
    scores: Intervals


@dataclass(frozen=True)
class Given:
    """A result and its global set, both verified; `signed` are the bytes of the result."""

    result: RoundResult
    shared: SharedSet = field(repr=False)
    signed: bytes = field(repr=False)


@dataclass(frozen=True)
class Expected:
    """What a site takes a result for: of its study, by its pinned key, of this round.

    `run` is the one that asks; None where a site reads again what it verified before.
    """

    study: Study
    pinned: str
    round: int
    run: str | None = None


def result_of(
    shared: SharedSet, study: Study, *, run: str, round: int, scores: dict[str, dict[str, float]]
) -> RoundResult:
    """The result of a round, of the server's own estimates by measure."""
    rate = None if shared.student_rate is None else rate_text(shared.student_rate)
    return RoundResult(
        study_digest=study.digest,
        run=run,
        round=round,
        set_sha256=shared.sha256,
        images=len(shared),
        student_lr=rate,
        scores={name: _texts(scores[name]) for name in SCORES},
    )


def sign_result(result: RoundResult, key: SigningKey) -> bytes:
    """Canonical JSON of the result, the run-signing public key, and the signature."""
    values = {**asdict(result), "version": VERSION}
    envelope = {
        "result": values,
        "signature": key.sign(_message(values)).hex(),
        "signing_key": key.public.hex(),
    }
    return canonical_json(envelope)


def read_given(signed: bytes, data: bytes, expected: Expected) -> Given:
    """The global set, if the pinned key signed its digest and it is one of the site's study.

    Nothing is computed from `data` before its length, its values and its digest are as they
    should be; its bytes are numbers and never code.

    Raises:
        DescriptionRejected: it is malformed, signed by another key, of another study, run or
            round, or not the set that was signed.
    """
    result = read_result(signed, expected)
    shared = _read_set(result, data, expected.study)
    if not hmac.compare_digest(shared.sha256, result.set_sha256):
        raise _rejected("it is not the set that was signed")
    return Given(result, shared, signed)


def read_result(signed: bytes, expected: Expected) -> RoundResult:
    """The result alone, if it is what is expected.

    Raises:
        DescriptionRejected: it is not.
    """
    envelope = _parse(signed)
    values = dict(envelope["result"])
    public, signature = (bytes.fromhex(envelope[key]) for key in ("signing_key", "signature"))
    if not verify_signature(public, signature, _message(values)):
        raise _rejected("its signature is wrong")
    signer = fingerprint_digits(signing_fingerprint(public))
    pinned = fingerprint_digits(expected.pinned).encode("utf-8", "replace")
    if not hmac.compare_digest(signer.encode("ascii"), pinned):
        raise _rejected("another key signed it")
    if values.pop("version") != VERSION:
        raise _rejected("its version is unknown")
    result = RoundResult(**values)
    if result.study_digest != expected.study.digest:
        raise _rejected("it is of another study")
    if result.round != expected.round:
        raise _rejected("it is of another round")
    if expected.run is not None and result.run != expected.run:
        raise _rejected("it is of another run")
    return result


def _parse(signed: bytes) -> dict[str, Any]:
    try:
        envelope = read_strictly(signed) if len(signed) <= LARGEST_RESULT else None
    except ValueError:
        envelope = None
    if envelope is None or not _is_well_formed(envelope):
        raise _rejected("it is malformed")
    return envelope


def _is_well_formed(envelope: dict[str, Any]) -> bool:
    if not has_shape(envelope, _ENVELOPE) or not has_shape(envelope["result"], _FIELDS):
        return False
    values = envelope["result"]
    return (
        _is_hex(envelope["signing_key"], 32)
        and _is_hex(envelope["signature"], 64)
        and _is_hex(values["run"], 16)
        and _is_hex(values["study_digest"], 32)
        and _is_hex(values["set_sha256"], 32)
        and values["round"] >= 1
        and values["images"] >= 1
        and has_shape(values["scores"], dict.fromkeys(SCORES, dict))
        and all(_is_interval(of) for of in values["scores"].values())
    )


def _is_interval(value: dict[str, Any]) -> bool:
    return has_shape(value, _INTERVAL) and all(_is_share(text) for text in value.values())


def _is_share(text: str) -> bool:
    try:
        return 0 <= decimal_number(text) <= 1
    except ValueError:
        return False


def _read_set(result: RoundResult, data: bytes, study: Study) -> SharedSet:
    """The arrays, cut by lengths that follow from the study and the signed number of images."""
    spec, n, classes = study.image, result.images, len(study.classes)
    pixels = spec.channels * spec.size**2
    soft_bytes = 2 * classes if study.distill.soft_labels else 0
    length = n * (pixels + 1 + soft_bytes)
    if len(data) != length or length > LARGEST_GLOBAL_SET:
        raise _rejected("its set has another size")
    images = np.frombuffer(data, np.uint8, n * pixels)
    labels = np.frombuffer(data, np.uint8, n, offset=n * pixels)
    soft = soft_array(memoryview(data)[n * (pixels + 1) :], n) if soft_bytes else None
    if labels.max() >= classes or (soft is not None and not are_probabilities(soft)):
        raise _rejected("a label of its set is none of the study's")
    return SharedSet(
        images=images.reshape(n, spec.channels, spec.size, spec.size),
        labels=labels,
        lo=decimal_text(spec.lowest),
        hi=decimal_text(spec.highest),
        soft=soft,
        student_rate=_read_rate(result.student_lr, study),
    )


def _read_rate(text: str | None, study: Study) -> float | None:
    if (text is not None) is not study.distill.learns_rate:
        raise _rejected("its step size is not one of the study")
    try:
        return None if text is None else rate_number(text)
    except ValueError:
        raise _rejected("its step size is none") from None


def _texts(estimate: dict[str, float]) -> dict[str, str]:
    """Shares to four digits: what is told in a line."""
    return {name: decimal_text(round(estimate[name], 4)) for name in _INTERVAL}


def _is_hex(text: str, length: int) -> bool:
    return re.fullmatch(f"[0-9a-f]{{{2 * length}}}", text) is not None


def _message(values: dict[str, Any]) -> bytes:
    return b"fedcondense/result/v1\0" + hashlib.sha256(canonical_json(values)).digest()


def _rejected(why: str) -> DescriptionRejected:
    return DescriptionRejected(
        f"what a round gave is refused: {why}",
        hint="compare study file and fingerprint with the server operator, by voice or on paper",
    )
