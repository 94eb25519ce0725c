"""The body of a contribution: contents, pixels, labels, zero padding to the study's ceiling.

Layout and rules: docs/ref-contribution-format.md. The reader takes nothing on trust and compares
every size with the study before it allocates.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fedcondense.errors import InternalError
from fedcondense.exchange.contribution import Payload, Provenance, Purpose
from fedcondense.exchange.rejection import Reason, demand, reject
from fedcondense.exchange.release_record import absent_classes, check_record
from fedcondense.exchange.strict_json import has_shape, read_strictly
from fedcondense.exchange.terms import (
    CONTENTS_LENGTH,
    CORESETS,
    LARGEST_CONTENTS,
    Terms,
    decimal_number,
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


def encode_body(payload: Payload, record: dict[str, Any], terms: Terms) -> bytes:
    """Contents, pixels and labels, padded to the study's ceiling.

    Raises:
        InternalError: the contents or the set are larger than the study allows.
    """
    contents = canonical_json(_contents(payload, record))
    body = b"".join(
        (
            len(contents).to_bytes(CONTENTS_LENGTH, "little"),
            contents,
            payload.pixels,
            payload.labels,
        )
    )
    if len(contents) > LARGEST_CONTENTS or len(body) > terms.body_bytes:
        raise InternalError("the payload is above the study's ceiling", hint="report this error")
    return body.ljust(terms.body_bytes, b"\0")


def decode_body(body: bytes, purpose: Purpose, terms: Terms) -> tuple[Payload, dict[str, Any]]:
    """The payload and release record of an opened body, every field checked.

    Raises:
        ContributionRejected: the body is not one of this study and purpose.
    """
    view = memoryview(body)
    demand(len(view) == terms.body_bytes, Reason.SIZE)
    length = int.from_bytes(view[:CONTENTS_LENGTH], "little")
    demand(0 < length <= LARGEST_CONTENTS, Reason.CONTENTS)
    start = CONTENTS_LENGTH + length
    contents = _read_contents(bytes(view[CONTENTS_LENGTH:start]))
    _check_terms(contents, purpose, terms)
    images = contents["shape"][0]
    middle = start + images * terms.image_bytes
    end = middle + images
    demand(not np.frombuffer(view[end:], np.uint8).any(), Reason.PADDING)
    _check_labels(np.frombuffer(view[middle:end], np.uint8), terms)
    _check_pixels(np.frombuffer(view[start:middle], np.uint8).reshape(images, -1), contents)
    digest = hashlib.sha256(view[start:end]).hexdigest()
    demand(_equal(digest, contents["payload_sha256"]), Reason.DIGEST)
    payload = _payload(contents, view[start:middle], view[middle:end], terms)
    check_record(contents["release_record"], payload, terms, purpose=purpose)
    demand(contents["approvals"] == [], Reason.APPROVALS)
    return payload, contents["release_record"]


def _contents(payload: Payload, record: dict[str, Any]) -> dict[str, Any]:
    provenance = payload.provenance
    return {
        "approvals": [],
        "dtype": "uint8",
        "labels_dtype": "uint8",
        "method": provenance.method,
        "partition": provenance.partition,
        "payload_sha256": payload.sha256,
        "recipe": provenance.recipe,
        "release_record": record,
        "scale": {"hi": payload.hi, "lo": payload.lo},
        "shape": list(payload.shape),
        "soft_labels": "none",
        "start": provenance.start,
        "student_lr": None,
    }


def _payload(
    contents: dict[str, Any], pixels: memoryview, labels: memoryview, terms: Terms
) -> Payload:
    images, channels, height, width = contents["shape"]
    return Payload(
        pixels=bytes(pixels),
        labels=bytes(labels),
        shape=(images, channels, height, width),
        lo=contents["scale"]["lo"],
        hi=contents["scale"]["hi"],
        provenance=Provenance(
            method=contents["method"],
            start=contents["start"],
            partition=contents["partition"],
            recipe=contents["recipe"],
            left_out=absent_classes(bytes(labels), terms.classes),
        ),
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
    demand(contents["soft_labels"] == "none", Reason.SOFT)
    demand(contents["method"] == terms.method, Reason.METHOD)
    demand(contents["method"] not in CORESETS or purpose == "simulation", Reason.METHOD)
    demand(contents["partition"] == terms.partition, Reason.PARTITION)
    demand(contents["start"] == terms.start, Reason.START)
    demand(contents["start"] != "real" or purpose == "simulation", Reason.START)
    demand(contents["student_lr"] is None, Reason.RATE)
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
