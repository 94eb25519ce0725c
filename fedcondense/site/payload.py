"""The very bytes that would leave, encoded from the set that a site keeps."""

from __future__ import annotations

from fedcondense.config.study import Study
from fedcondense.distill.synthetic import SyntheticSet
from fedcondense.exchange.contribution import (
    Payload,
    Provenance,
    SyntheticArrays,
    decode_payload,
    encode_payload,
)
from fedcondense.exchange.release_record import absent_classes
from fedcondense.site.state import RoundState


def payload_of(state: RoundState, study: Study) -> Payload:
    """The kept set, encoded; a class without an image in it is named as left out."""
    kept = state.synthetic()
    rate = kept.get("student_rate")
    arrays = SyntheticArrays(
        images=kept["images"],
        labels=kept["labels"].astype("uint8"),
        soft=kept.get("soft"),
        student_rate=None if rate is None else float(rate),
    )
    return _encoded(arrays, study)


def as_it_would_leave(synthetic: SyntheticSet, study: Study) -> SyntheticArrays:
    """A set as whoever receives it would see it, after rounding."""
    arrays = SyntheticArrays(
        images=synthetic.images.cpu().numpy(),
        labels=synthetic.labels.cpu().numpy().astype("uint8"),
        soft=None if synthetic.soft is None else synthetic.soft.cpu().numpy(),
        student_rate=synthetic.student_rate,
    )
    return decode_payload(_encoded(arrays, study))


def _encoded(arrays: SyntheticArrays, study: Study) -> Payload:
    left_out = absent_classes(arrays.labels.tobytes(), study.classes)
    return encode_payload(arrays, Provenance.of(study, left_out), study)
