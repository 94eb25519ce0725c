"""Provenance: what forbids a release by how a set came about and by what it plainly holds."""

from __future__ import annotations

import numpy as np

from fedcondense.config.study import Study
from fedcondense.exchange.contents import LEAST_CONTRAST
from fedcondense.exchange.contribution import (
    Payload,
    Provenance,
    SyntheticArrays,
    decode_payload,
)
from fedcondense.exchange.release_record import Refusal, absent_classes, studied_refusals
from fedcondense.files.storage import sha256


def provenance_problems(payload: Payload, study: Study) -> tuple[Refusal, ...]:
    """Everything that forbids a release, in the order of the closed list; empty if nothing does.

    The set is judged as the server would read it: decoded from the bytes of `payload`.
    """
    found = {*_problems_of_origin(payload, study), *_problems_of_pixels(payload)}
    return tuple(refusal for refusal in Refusal if refusal in found)


def _problems_of_origin(payload: Payload, study: Study) -> tuple[Refusal, ...]:
    """What the code that made the set says of it, against the study and against the labels.

    Soft labels or a step size that the study does not learn would leave unlooked-at.
    """
    stated, planned = payload.provenance, Provenance.of(study, payload.provenance.left_out)
    if not (stated.method and stated.start and stated.partition and stated.recipe):
        return (Refusal.MISSING,)
    absent = set(absent_classes(payload.labels, study.classes))
    learned = bool(payload.soft), payload.student_rate is not None
    planned_too = study.distill.soft_labels, study.distill.learns_rate
    if stated != planned or set(stated.left_out) != absent or learned != planned_too:
        return (Refusal.CONTRADICTORY, *studied_refusals(stated))
    return studied_refusals(stated)


def _problems_of_pixels(payload: Payload) -> tuple[Refusal, ...]:
    try:
        arrays = decode_payload(payload)
    except ValueError:  # a scale that is no number, or a step size that is none
        return (Refusal.NOT_FINITE,)
    found = {
        Refusal.NOT_FINITE: not all(np.isfinite(of).all() for of in _numbers(arrays)),
        Refusal.CONSTANT: _has_constant_image(arrays),
        Refusal.DUPLICATE: _has_equal_images(arrays),
    }
    return tuple(refusal for refusal, holds in found.items() if holds)


def _numbers(arrays: SyntheticArrays) -> tuple[np.ndarray, ...]:
    return (arrays.images,) if arrays.soft is None else (arrays.images, arrays.soft)


def _has_constant_image(arrays: SyntheticArrays) -> bool:
    """One image at a time: the largest set would not fit twice."""
    return any(image.std(dtype=np.float64) < LEAST_CONTRAST for image in arrays.images)


def _has_equal_images(arrays: SyntheticArrays) -> bool:
    return len({sha256(image.tobytes()) for image in arrays.images}) < len(arrays.images)
