"""What a round gave: signed by the pinned key, of this study, run and round, or refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_kit import RUN, canonical, learning_study, payload_of, small_study

from fedcondense.config.study import Study
from fedcondense.errors import DescriptionRejected
from fedcondense.exchange.keys import SigningKey
from fedcondense.exchange.round_result import (
    Expected,
    Given,
    RoundResult,
    read_given,
    read_result,
    result_of,
    sign_result,
)
from fedcondense.exchange.sealing import Opened
from fedcondense.exchange.shared_set import SharedSet
from fedcondense.server.aggregate import aggregate

STUDY = small_study(rounds=3)
OPERATOR = SigningKey.generate()
EXPECTED = Expected(STUDY, OPERATOR.fingerprint, 1, RUN)
SCORES = {
    "balanced_accuracy": {"mean": 0.81234, "sd": 0.01, "low": 0.7, "high": 0.9},
    "auroc": {"mean": 1.0, "sd": 0.0, "low": 0.00001, "high": 1.0},
    "accuracy": {"mean": 0.8, "sd": 0.0, "low": 0.7, "high": 0.9},
}


def shared_of(study: Study = STUDY) -> SharedSet:
    return aggregate(
        [Opened(f"site-{n}", payload_of(study, seed=n), {}) for n in (1, 2)], study
    ).shared


SHARED = shared_of()


def result(shared: SharedSet = SHARED, study: Study = STUDY) -> RoundResult:
    return result_of(shared, study, run=RUN, round=1, scores=SCORES)


def signed(**changes: object) -> bytes:
    return sign_result(replace(result(), **changes), OPERATOR)


def refusal(data: bytes, signature: bytes | None = None, expected: Expected = EXPECTED) -> str:
    with pytest.raises(DescriptionRejected) as caught:
        read_given(signature or signed(), data, expected)
    return caught.value.message


def test_what_was_signed_arrives_as_the_set_that_it_was() -> None:
    given_set: Given = read_given(signed(), SHARED.data, EXPECTED)

    assert given_set.shared.sha256 == SHARED.sha256
    assert np.array_equal(given_set.shared.images, SHARED.images)
    assert given_set.result.scores["balanced_accuracy"] == {
        "mean": "0.8123", "low": "0.7", "high": "0.9"
    }  # fmt: skip
    assert set(given_set.result.scores) == {"auroc", "balanced_accuracy"}


def test_soft_labels_and_step_size_travel_too() -> None:
    study = learning_study(rounds=2)
    shared = shared_of(study)
    signature = sign_result(result(shared, study), OPERATOR)

    given_set = read_given(signature, shared.data, Expected(study, OPERATOR.fingerprint, 1, RUN))

    assert given_set.shared.soft is not None
    assert shared.soft is not None
    assert given_set.shared.soft.tolist() == shared.soft.tolist()
    assert given_set.shared.student_rate == shared.student_rate


def test_no_name_of_a_site_is_in_what_sites_are_given() -> None:
    assert b"site" not in SHARED.data + signed()


def test_a_set_of_another_length_is_refused_before_it_is_looked_at() -> None:
    for data in (b"", SHARED.data[:-1], SHARED.data + b"\0", b"PK\x03\x04"):
        assert refusal(data).endswith("its set has another size")


@given(place=st.integers(0, len(SHARED.data) - 1), change=st.integers(1, 255))
def test_a_set_with_a_changed_byte_is_refused(place: int, change: int) -> None:
    changed = bytearray(SHARED.data)
    changed[place] ^= change

    assert "is refused" in refusal(bytes(changed))


@given(place=st.integers(0, len(signed()) - 1), change=st.integers(1, 255))
def test_a_result_with_a_changed_byte_is_refused(place: int, change: int) -> None:
    changed = bytearray(signed())
    changed[place] ^= change

    assert "is refused" in refusal(SHARED.data, bytes(changed))


@pytest.mark.parametrize(
    ("expected", "why"),
    [
        (replace(EXPECTED, pinned=SigningKey.generate().fingerprint), "another key signed it"),
        (replace(EXPECTED, round=2), "it is of another round"),
        (replace(EXPECTED, run="f" * 32), "it is of another run"),
        (replace(EXPECTED, study=small_study(rounds=3, seed=1)), "it is of another study"),
    ],
)
def test_a_result_that_is_not_the_one_asked_for_is_refused(expected: Expected, why: str) -> None:
    assert refusal(SHARED.data, expected=expected).endswith(why)


def test_what_was_verified_before_is_read_again_without_naming_its_run() -> None:
    assert read_result(signed(), replace(EXPECTED, run=None)).run == RUN


def test_another_set_of_the_same_size_is_not_the_one_that_was_signed() -> None:
    other = replace(SHARED, images=255 - SHARED.images)

    assert refusal(other.data).endswith("it is not the set that was signed")


@pytest.mark.parametrize("images", [0, -1, 2**40, len(SHARED) + 1])
def test_a_signed_number_of_images_that_the_bytes_have_not_is_refused(images: int) -> None:
    assert "is refused" in refusal(SHARED.data, signed(images=images))


def test_a_label_that_is_no_class_is_refused_though_it_was_signed() -> None:
    wrong = replace(SHARED, labels=np.full_like(SHARED.labels, 2))
    signature = sign_result(result(wrong), OPERATOR)

    assert refusal(wrong.data, signature).endswith("a label of its set is none of the study's")


@pytest.mark.parametrize("number", [np.nan, np.inf, -1.0])
def test_soft_labels_that_are_no_probabilities_are_refused_though_signed(number: float) -> None:
    study = learning_study(rounds=2)
    shared = shared_of(study)
    assert shared.soft is not None
    soft = shared.soft.copy()
    soft[0, 0] = number
    wrong = replace(shared, soft=soft)
    signature = sign_result(result(wrong, study), OPERATOR)

    expected = Expected(study, OPERATOR.fingerprint, 1, RUN)

    assert "is refused" in refusal(wrong.data, signature, expected)


@pytest.mark.parametrize("rate", ["0.01", "0", "11", "nan"])
def test_a_step_size_that_the_study_does_not_learn_is_refused(rate: str) -> None:
    assert "step size" in refusal(SHARED.data, signed(student_lr=rate))


@pytest.mark.parametrize("text", ["1.5", "-0.1", "0.50", "nan", "1e-3", ""])
def test_a_score_that_is_no_share_is_malformed(text: str) -> None:
    scores = {**result().scores, "auroc": {"mean": text, "low": "0", "high": "1"}}

    assert refusal(SHARED.data, signed(scores=scores)).endswith("it is malformed")


def test_a_result_with_one_key_more_is_malformed() -> None:
    envelope = json.loads(signed())
    envelope["result"]["weights"] = "00"

    assert refusal(SHARED.data, canonical(envelope)).endswith("it is malformed")


def test_a_signature_for_a_run_description_is_none_for_a_result() -> None:
    from fedcondense.exchange.run_description import _message

    envelope = json.loads(signed())
    envelope["signature"] = OPERATOR.sign(_message(envelope["result"])).hex()

    assert refusal(SHARED.data, canonical(envelope)).endswith("its signature is wrong")
