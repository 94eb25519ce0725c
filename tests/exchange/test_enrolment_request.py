"""What a site hands over to be enrolled: complete, its own, and read in one way only."""

from __future__ import annotations

import json
import stat
from dataclasses import replace

import pytest
from wire_kit import canonical

from fedcondense.errors import EnrolmentRejected
from fedcondense.exchange.enrolment_request import (
    LARGEST_ENROLMENT,
    EnrolmentRequest,
    parse_enrolment,
    read_enrolment,
    sign_enrolment,
    write_enrolment,
)
from fedcondense.exchange.keys import SigningKey
from fedcondense.exchange.node_key import NodeKey

KEY, OFFICER, NODE = SigningKey.generate(), SigningKey.generate(), NodeKey.generate()
REQUEST = EnrolmentRequest("lakeside", KEY.public.hex(), NODE.public, 1_900_000_000)
WITH_OFFICER = replace(REQUEST, officer_key=OFFICER.public.hex())


def changed(**values: object) -> bytes:
    """A request whose fields were changed and that was signed again by the same key."""
    from fedcondense.exchange.enrolment_request import _message

    envelope = json.loads(sign_enrolment(REQUEST, KEY))
    envelope["request"] |= values
    envelope["signature"] = KEY.sign(_message(envelope["request"])).hex()
    return canonical(envelope)


@pytest.mark.parametrize("request_", [REQUEST, WITH_OFFICER], ids=["site", "with officer"])
def test_a_written_request_comes_back(tmp_path, request_):
    path = tmp_path / "request.json"

    write_enrolment(path, request_, KEY)

    assert read_enrolment(path) == request_
    assert stat.S_IMODE(path.stat().st_mode) & 0o200


def test_it_is_never_written_over_another(tmp_path):
    path = tmp_path / "request.json"
    write_enrolment(path, REQUEST, KEY)

    with pytest.raises(FileExistsError):
        write_enrolment(path, WITH_OFFICER, KEY)

    assert read_enrolment(path) == REQUEST


def test_the_file_shows_the_fingerprint_that_is_read_out():
    values = json.loads(sign_enrolment(REQUEST, KEY))["request"]

    assert values["fingerprint"] == KEY.fingerprint == REQUEST.signing_fingerprint
    assert REQUEST.node_fingerprint == NODE.fingerprint
    assert REQUEST.officer_fingerprint is None
    assert WITH_OFFICER.officer_fingerprint == OFFICER.fingerprint


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"  \n\n"])
def test_white_space_at_the_end_is_the_mailers(end):
    assert parse_enrolment(sign_enrolment(REQUEST, KEY).rstrip() + end) == REQUEST


def test_a_request_signed_by_another_key_is_refused():
    with pytest.raises(EnrolmentRejected, match="its signature is wrong") as error:
        parse_enrolment(sign_enrolment(REQUEST, OFFICER))

    assert (error.value.code, error.value.exit_code) == ("FC408", 1)


def test_a_changed_byte_is_refused_wherever_it_is():
    data = sign_enrolment(REQUEST, KEY).rstrip()

    for at in range(len(data)):
        with pytest.raises(EnrolmentRejected):
            parse_enrolment(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


@pytest.mark.parametrize(
    "change",
    [
        {"site": "Lakeside"},
        {"site": "../lakeside"},
        {"site": ""},
        {"signing_key": KEY.public.hex().upper()},
        {"signing_key": KEY.public.hex()[2:]},
        {"node_key": "ssh-ed25519 AAAA"},
        {"node_key": NODE.public + " jane@doe"},
        {"officer_key": ""},
        {"officer_key": "ab"},
        {"expires": -1},
        {"expires": True},
        {"expires": 1.5},
        {"fingerprint": "abcd"},
        {"extra": 1},
    ],
    ids=str,
)
def test_a_malformed_field_is_refused_although_rightly_signed(change):
    with pytest.raises(EnrolmentRejected, match="it is malformed"):
        parse_enrolment(changed(**change))


def test_the_shown_fingerprint_must_be_that_of_the_key():
    with pytest.raises(EnrolmentRejected, match="its fingerprint is not that of its key"):
        parse_enrolment(changed(fingerprint=OFFICER.fingerprint))


def test_another_version_is_refused():
    with pytest.raises(EnrolmentRejected, match="its version is unknown"):
        parse_enrolment(changed(version=2))


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"null", b"[]", b"[" * 4000, b'{"request":{},"signature":""}', b"\xff", b"PK\3\4"],
)
def test_bytes_that_are_no_request_are_refused(data):
    with pytest.raises(EnrolmentRejected, match=r"^the enrolment request is refused: it is malf"):
        parse_enrolment(data)


def test_a_file_beyond_the_limit_is_not_read_further(tmp_path):
    path = tmp_path / "request.json"
    path.write_bytes(sign_enrolment(REQUEST, KEY) + b" " * LARGEST_ENROLMENT)

    with pytest.raises(EnrolmentRejected, match="it is too long"):
        read_enrolment(path)


def test_a_file_that_is_not_there_is_named_by_its_fault(tmp_path):
    with pytest.raises(EnrolmentRejected, match="no such file"):
        read_enrolment(tmp_path / "request.json")
