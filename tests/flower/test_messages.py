"""What may stand in a Flower message; everything else is one of our errors."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedcondense.config.study import LARGEST_CONTRIBUTION
from fedcondense.errors import ContributionRejected, DescriptionRejected
from fedcondense.flower.messages import (
    CONTRIBUTE,
    RESULT,
    Ask,
    Outcome,
    Reply,
    read_reply,
    read_request,
    to_reply,
    to_request,
)

KEY = "ab" * 32
ASK = Ask(b"{}", 1)


def request(ask: Ask = ASK) -> Message:
    return to_request(CONTRIBUTE, 7, ask, 60.0)


def sealed_reply(blob: bytes = b"sealed bytes") -> Message:
    return to_reply(Reply(Outcome.SEALED, signing_key=KEY, sealed=blob), request())


def with_array(array: Array) -> Message:
    """A reply of 12 bytes whose array is another."""
    message = sealed_reply()
    message.content["sealed"] = ArrayRecord({"sealed": array})
    return message


def with_field(name: str, value: Any) -> Message:
    message = sealed_reply()
    message.content["reply"][name] = value
    return message


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_a_request_arrives_as_it_was_sent() -> None:
    sent = Ask(b'{"description":1}', 3)

    message = request(sent)

    assert read_request(message) == sent
    assert message.metadata.message_type == "train.contribute"
    assert message.metadata.ttl == 60


def test_what_a_round_gave_arrives_with_the_request() -> None:
    sent = Ask(b'{"description":1}', 3, result=b'{"result":1}', data=bytes(range(256)))

    read = read_request(request(sent))

    assert (read.result, read.data) == (sent.result, sent.data)
    assert (sent.greeting.result, sent.greeting.data) == (b"", b"")


def test_a_result_without_its_set_or_a_set_without_its_result_is_refused() -> None:
    full = Ask(b"{}", 2, result=b"{}", data=b"pixels")
    without_set, without_result = request(full), request(full)
    del without_set.content["global"]
    del without_result.content["request"]["result"]

    for message in (without_set, without_result):
        with pytest.raises(DescriptionRejected, match="malformed"):
            read_request(message)


def test_a_result_that_is_told_may_come_without_its_set() -> None:
    sent = Ask(b"{}", 2, result=b"{}")

    assert read_request(to_request(RESULT, 7, sent, 60.0)) == sent
    with pytest.raises(DescriptionRejected, match="malformed"):
        read_request(request(sent))


@pytest.mark.parametrize(
    "array",
    [np.zeros(3), np.zeros((2, 2), np.uint8), np.zeros(0, np.uint8), np.zeros(3, np.int8)],
)
def test_a_set_that_is_not_one_row_of_bytes_is_refused(array: np.ndarray) -> None:
    message = request(Ask(b"{}", 2, result=b"{}", data=b"pixels"))
    message.content["global"] = ArrayRecord({"global": Array(array)})

    with pytest.raises(DescriptionRejected, match="not one row of bytes"):
        read_request(message)


def test_a_request_can_be_measured_before_it_is_read() -> None:
    for ask in (ASK, Ask(b"{}", 2, result=b"{}", data=bytes(1000))):
        sizes = [record.count_bytes() for record in request(ask).content.values()]

        assert sum(sizes) >= len(ask.data)


@pytest.mark.parametrize("outcome", [Outcome.READY, Outcome.REFUSED, Outcome.FAILED])
def test_a_reply_without_contribution_arrives_as_it_was_sent(outcome: Outcome) -> None:
    sent = Reply(outcome, "" if outcome is Outcome.READY else "FC201", KEY)

    received = read_reply(to_reply(sent, request()))

    assert received == sent


@given(blob=st.binary(min_size=1, max_size=4096))
def test_a_contribution_arrives_byte_for_byte(blob: bytes) -> None:
    received = read_reply(sealed_reply(blob))

    assert received == Reply(Outcome.SEALED, signing_key=KEY, sealed=blob)


def test_a_contribution_of_64_mib_passes() -> None:
    blob = bytes(LARGEST_CONTRIBUTION)

    received = read_reply(sealed_reply(blob))

    assert len(received.sealed) == 67_108_864


def test_one_byte_more_is_refused() -> None:
    message = sealed_reply(bytes(LARGEST_CONTRIBUTION + 1))

    with pytest.raises(ContributionRejected) as refusal:
        read_reply(message)

    assert refusal.value.reason == "length"


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (Array(np.zeros(12, np.float32)), "dtype"),
        (Array(np.zeros(12, np.int8)), "dtype"),
        (Array("uint8", (12,), "torch", npy(np.zeros(12, np.uint8))), "dtype"),
        (Array("uint8", (12,), "numpy.ndarray", b"\x93NUMPY" + bytes(134)), "dtype"),
        (Array("uint8", (12,), "numpy.ndarray", npy(np.zeros(12, np.int8))), "dtype"),
        (Array("uint8", (12,), "numpy.ndarray", b"PK\x03\x04" + bytes(136)), "dtype"),
        (Array(np.zeros((3, 4), np.uint8)), "shape"),
        (Array(np.zeros((), np.uint8)), "shape"),
        (Array(np.zeros(0, np.uint8)), "length"),
        (Array("uint8", (2**40,), "numpy.ndarray", npy(np.zeros(12, np.uint8))), "length"),
        (Array("uint8", (12,), "numpy.ndarray", npy(np.zeros(13, np.uint8))), "length"),
        (Array("uint8", (-1,), "numpy.ndarray", npy(np.zeros(12, np.uint8))), "length"),
        (Array(np.ones(13, np.uint8)), "length"),
        (Array(np.ones(12, np.uint8)), "digest"),
    ],
)
def test_an_array_that_is_not_the_stated_row_of_bytes_is_refused(array: Array, reason: str) -> None:
    with pytest.raises(ContributionRejected) as refusal:
        read_reply(with_array(array))

    assert refusal.value.reason == reason


def test_no_array_reader_ever_sees_received_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    message = sealed_reply()

    monkeypatch.setattr(Array, "numpy", lambda self: pytest.fail("read with numpy"))
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("read with numpy"))

    assert read_reply(message).sealed == b"sealed bytes"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("protocol", 2, "version"),
        ("protocol", True, "contents"),
        ("protocol", "1", "contents"),
        ("version", "1" * 41, "version"),
        ("version", "Jane Doe", "version"),
        ("outcome", "opened", "contents"),
        ("outcome", "ready", "contents"),
        ("code", "FC201", "contents"),
        ("signing_key", "AB" * 32, "key"),
        ("length", 11, "length"),
        ("sha256", "0" * 64, "digest"),
        ("images", 300, "contents"),
    ],
)
def test_a_reply_with_a_wrong_field_is_refused(name: str, value: Any, reason: str) -> None:
    with pytest.raises(ContributionRejected) as refusal:
        read_reply(with_field(name, value))

    assert refusal.value.reason == reason


def test_a_refusal_needs_a_code_and_no_text() -> None:
    for code in ("", "FC2011", "Jane Doe"):
        message = to_reply(Reply(Outcome.REFUSED, code, KEY), request())
        with pytest.raises(ContributionRejected, match="contents"):
            read_reply(message)


def test_a_record_too_many_or_too_few_is_refused() -> None:
    extra, bare, empty = sealed_reply(), sealed_reply(), sealed_reply()
    extra.content["metrics"] = MetricRecord({"images": 300})
    del bare.content["sealed"]
    empty.content["sealed"] = ArrayRecord()

    for message in (extra, bare, empty):
        with pytest.raises(ContributionRejected, match="contents"):
            read_reply(message)


def test_an_error_of_flower_is_no_reply() -> None:
    message = Message(Error(code=0, reason="Jane Doe"), reply_to=request())

    with pytest.raises(ContributionRejected, match="contents"):
        read_reply(message)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("protocol", 2),
        ("round", 0),
        ("round", 1_001),
        ("round", True),
        ("version", ""),
        ("description", "{}"),
        ("description", bytes(8 * 1024 + 1)),
        ("images_per_class", 10**6),
    ],
)
def test_a_request_with_a_wrong_field_is_refused(name: str, value: Any) -> None:
    message = request()
    message.content["request"][name] = value

    with pytest.raises(DescriptionRejected, match="the server's request is refused"):
        read_request(message)


def test_a_request_that_brings_arrays_is_refused() -> None:
    message = request()
    message.content["weights"] = ArrayRecord([np.zeros(3)])

    with pytest.raises(DescriptionRejected, match="malformed"):
        read_request(message)


def test_a_request_without_its_record_is_refused() -> None:
    for content in (RecordDict(), RecordDict({"request": ConfigRecord()})):
        with pytest.raises(DescriptionRejected, match="malformed"):
            read_request(Message(content, 7, CONTRIBUTE))
