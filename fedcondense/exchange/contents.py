"""The body of a contribution: contents, pixels, labels, soft labels, zeros up to the ceiling.

Layout and rules: docs/ref-contribution-format.md. The reader takes nothing on trust and compares
every size with the study before it allocates.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fedcondense.errors import InternalError
from fedcondense.exchange.approval import Approval, read_approvals, write_approvals
from fedcondense.exchange.contribution import Payload, Provenance, Purpose
from fedcondense.exchange.rejection import Reason, demand, reject
from fedcondense.exchange.release_record import absent_classes, check_record
from fedcondense.exchange.soft_labels import are_probabilities, soft_array
from fedcondense.exchange.strict_json import has_shape, read_strictly
from fedcondense.exchange.terms import (
    CONTENTS_LENGTH,
    CORESETS,
    LARGEST_CONTENTS,
    Terms,
    decimal_number,
    rate_number,
)
from fedcondense.files.storage import canonical_json

LARGEST_SCALE = 16.0  # normalised units
LEAST_CONTRAST = (
    0.01  # standard deviation of an image in normalised units; radiographs have about 1
)
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "approvals": list,
    "dtype": str,
    "labels_dtype": str,
    "method": str,
    "partition": int,
    "payload_sha256": str,
    "recipe": dict,
    "release_record": dict,
    "scale": dict,
    "shape": list,
    "soft_labels": str,
    "start": str,
    "student_lr": (str, type(None)),
}


@dataclass(frozen=True)
class _Arrays:
    """The parts of a body behind its contents, as views of it: nothing is copied."""

    pixels: memoryview
    labels: memoryview
    soft: memoryview
    padding: memoryview


@dataclass(frozen=True)
class Body:
    """An opened body, every field checked but whose approvals they are."""

    payload: Payload
    record: dict[str, Any]
    approvals: tuple[Approval, ...]


def encode_body(
    payload: Payload, record: dict[str, Any], terms: Terms, approvals: Sequence[Approval] = ()
) -> bytes:
    """Contents, pixels, labels and soft labels, padded to the study's ceiling.

    Raises:
        InternalError: the contents or the set are larger than the study allows.
    """
    contents = canonical_json(_contents(payload, record, approvals))
    body = b"".join(
        (
            len(contents).to_bytes(CONTENTS_LENGTH, "little"),
            contents,
            payload.pixels,
            payload.labels,
            payload.soft,
        )
    )
    if len(contents) > LARGEST_CONTENTS or len(body) > terms.body_bytes:
        raise InternalError("the payload is above the study's ceiling", hint="report this error")
    return body.ljust(terms.body_bytes, b"\0")


def decode_body(body: bytes, purpose: Purpose, terms: Terms, *, round: int) -> Body:
    """Payload, release record and approvals of an opened body.

    Raises:
        ContributionRejected: the body is not one of this study, purpose and round.
    """
    view = memoryview(body)
    demand(len(view) == terms.body_bytes, Reason.SIZE)
    length = int.from_bytes(view[:CONTENTS_LENGTH], "little")
    demand(0 < length <= LARGEST_CONTENTS, Reason.CONTENTS)
    start = CONTENTS_LENGTH + length
    contents = _read_contents(bytes(view[CONTENTS_LENGTH:start]))
    _check_terms(contents, purpose, terms)
    arrays = _arrays(view[start:], contents["shape"][0], terms)
    demand(not np.frombuffer(arrays.padding, np.uint8).any(), Reason.PADDING)
    _check_values(arrays, contents, terms)
    digest = hashlib.sha256(view[start : len(view) - len(arrays.padding)]).hexdigest()
    demand(_equal(digest, contents["payload_sha256"]), Reason.DIGEST)
    payload, record = _payload(contents, arrays, terms), contents["release_record"]
    check_record(record, payload, terms, purpose=purpose, round=round)
    return Body(payload, record, read_approvals(contents["approvals"]))


def _contents(
    payload: Payload, record: dict[str, Any], approvals: Sequence[Approval]
) -> dict[str, Any]:
    provenance = payload.provenance
    return {
        "approvals": write_approvals(approvals),
        "dtype": "uint8",
        "labels_dtype": "uint8",
        "method": provenance.method,
        "partition": provenance.partition,
        "payload_sha256": payload.sha256,
        "recipe": provenance.recipe,
        "release_record": record,
        "scale": {"hi": payload.hi, "lo": payload.lo},
        "shape": list(payload.shape),
        "soft_labels": "float16" if payload.soft else "none",
        "start": provenance.start,
        "student_lr": payload.student_rate,
    }


def _arrays(rest: memoryview, images: int, terms: Terms) -> _Arrays:
    """What follows the contents, cut by the study's sizes; the ceiling has room for every cut."""
    labels = images * terms.image_bytes
    soft = labels + images
    padding = soft + images * terms.soft_bytes
    return _Arrays(rest[:labels], rest[labels:soft], rest[soft:padding], rest[padding:])


def _payload(contents: dict[str, Any], arrays: _Arrays, terms: Terms) -> Payload:
    images, channels, height, width = contents["shape"]
    labels = bytes(arrays.labels)
    return Payload(
        pixels=bytes(arrays.pixels),
        labels=labels,
        shape=(images, channels, height, width),
        lo=contents["scale"]["lo"],
        hi=contents["scale"]["hi"],
        provenance=Provenance(
            method=contents["method"],
            start=contents["start"],
            partition=contents["partition"],
            recipe=contents["recipe"],
            left_out=absent_classes(labels, terms.classes),
        ),
        soft=bytes(arrays.soft),
        student_rate=contents["student_lr"],
    )


def _read_contents(data: bytes) -> dict[str, Any]:
    try:
        contents = read_strictly(data)
    except ValueError:
        reject(Reason.CONTENTS)
    demand(has_shape(contents, _FIELDS), Reason.CONTENTS)
    return contents


def _check_terms(contents: dict[str, Any], purpose: Purpose, terms: Terms) -> None:
    """What can be judged before a pixel is looked at."""
    demand(contents["dtype"] == contents["labels_dtype"] == "uint8", Reason.DTYPE)
    _check_shape(contents["shape"], terms)
    _check_scale(contents["scale"])
    demand(contents["soft_labels"] == ("float16" if terms.soft_labels else "none"), Reason.SOFT)
    demand(contents["method"] == terms.method, Reason.METHOD)
    demand(contents["method"] not in CORESETS or purpose == "simulation", Reason.METHOD)
    demand(contents["partition"] == terms.partition, Reason.PARTITION)
    demand(contents["start"] == terms.start, Reason.START)
    demand(contents["start"] != "real" or purpose == "simulation", Reason.START)
    _check_rate(contents["student_lr"], terms)
    demand(canonical_json(contents["recipe"]) == canonical_json(terms.recipe), Reason.RECIPE)


def _check_shape(shape: list[Any], terms: Terms) -> None:
    demand(len(shape) == 4 and all(type(side) is int for side in shape), Reason.SHAPE)
    demand(1 <= shape[0] <= terms.largest_set, Reason.SHAPE)
    demand(shape[1:] == [terms.channels, terms.size, terms.size], Reason.SHAPE)


def _check_scale(scale: dict[str, Any]) -> None:
    demand(has_shape(scale, {"hi": str, "lo": str}), Reason.SCALE)
    try:
        lo, hi = decimal_number(scale["lo"]), decimal_number(scale["hi"])
    except ValueError:
        reject(Reason.SCALE)
    demand(-LARGEST_SCALE <= lo < hi <= LARGEST_SCALE, Reason.SCALE)


def _check_rate(text: str | None, terms: Terms) -> None:
    demand((text is not None) is terms.learns_rate, Reason.RATE)
    if text is None:
        return
    try:
        rate_number(text)
    except ValueError:
        reject(Reason.RATE)


def _check_values(arrays: _Arrays, contents: dict[str, Any], terms: Terms) -> None:
    """Labels, soft labels, pixels: what the arrays hold, whatever was said of them."""
    images = contents["shape"][0]
    _check_labels(np.frombuffer(arrays.labels, np.uint8), terms)
    if terms.soft_labels:
        demand(are_probabilities(soft_array(arrays.soft, images)), Reason.SOFT)
    _check_pixels(np.frombuffer(arrays.pixels, np.uint8).reshape(images, -1), contents)


def _check_labels(labels: UInt8[np.ndarray, " n"], terms: Terms) -> None:
    counts = np.bincount(labels, minlength=len(terms.classes))
    demand(len(counts) == len(terms.classes), Reason.LABELS)
    demand(counts.max() <= terms.images_per_class, Reason.LABELS)


def _check_pixels(images: UInt8[np.ndarray, "n p"], contents: dict[str, Any]) -> None:
    scale = contents["scale"]
    step = (decimal_number(scale["hi"]) - decimal_number(scale["lo"])) / 255
    demand(least_contrast(images) * step >= LEAST_CONTRAST, Reason.PIXELS)


def least_contrast(images: UInt8[np.ndarray, "n p"]) -> float:
    """The smallest standard deviation of an image, in steps; in parts, to bound the memory."""
    rows = max(1, 2**18 // images.shape[1])
    parts = (images[first : first + rows] for first in range(0, len(images), rows))
    return min(float(part.std(axis=1, dtype=np.float64).min()) for part in parts)


def _equal(digest: str, other: str) -> bool:
    return hmac.compare_digest(digest.encode("ascii"), other.encode("ascii", "replace"))
