from __future__ import annotations

import json
from dataclasses import replace

import pytest
from wire_kit import canonical, small_study

from fedcondense.errors import DescriptionRejected
from fedcondense.exchange.keys import SigningKey
from fedcondense.exchange.run_description import (
    read_description,
    sign_description,
    verify_description,
)


def test_a_signed_description_comes_back_under_the_pin(wire):
    signed = sign_description(wire.description, wire.server)

    description = verify_description(signed, pinned=wire.server.fingerprint, study=wire.study)

    assert description == wire.description


def test_a_description_signed_by_another_key_is_refused(wire):
    signed = sign_description(wire.description, SigningKey.generate())

    with pytest.raises(DescriptionRejected, match="another key signed it") as error:
        verify_description(signed, pinned=wire.server.fingerprint, study=wire.study)

    assert error.value.code == "FC404"
    assert error.value.exit_code == 1


def test_a_swapped_recipient_is_refused(wire):
    signed = json.loads(sign_description(wire.description, wire.server))
    signed["description"]["recipient"] = wire.description.recipient[:-2] + "00"

    with pytest.raises(DescriptionRejected, match="its signature is wrong"):
        verify_description(canonical(signed), pinned=wire.server.fingerprint, study=wire.study)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"study_digest": "0" * 64}, "it is of another study"),
        ({"quorum": 1}, "its quorum is not the study's"),
    ],
)
def test_a_rightly_signed_description_of_something_else_is_refused(wire, change, why):
    signed = sign_description(replace(wire.description, **change), wire.server)

    with pytest.raises(DescriptionRejected, match=why):
        verify_description(signed, pinned=wire.server.fingerprint, study=wire.study)


def test_a_pin_of_another_study_file_is_refused(wire):
    signed = sign_description(wire.description, wire.server)

    with pytest.raises(DescriptionRejected, match="it is of another study"):
        verify_description(
            signed, pinned=wire.server.fingerprint, study=small_study(images_per_class=2)
        )


@pytest.mark.parametrize("pinned", ["", "abcd", "ß" * 64])
def test_a_pin_that_is_no_fingerprint_matches_nothing(wire, pinned):
    signed = sign_description(wire.description, wire.server)

    with pytest.raises(DescriptionRejected, match="another key signed it"):
        verify_description(signed, pinned=pinned, study=wire.study)


@pytest.mark.parametrize(
    "change",
    [
        {"run": "0" * 31},
        {"run": "G" * 32},
        {"study_digest": "0" * 63},
        {"recipient": "00" * 1215},
        {"recipient": "ff" * 1216},
        {"purpose": "research"},
        {"quorum": 0},
        {"quorum": True},
        {"deadline": -1},
        {"deadline": "1"},
        {"extra": 1},
    ],
)
def test_a_malformed_field_is_refused(wire, change):
    signed = json.loads(sign_description(wire.description, wire.server))
    signed["description"] |= change
    signed["signature"] = "00" * 64

    with pytest.raises(DescriptionRejected, match="it is malformed"):
        read_description(canonical(signed))


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"null", b'{"description":{}}', b"[" * 9000, b'{"a":1,"a":1}', b"\xff"]
)
def test_bytes_that_are_no_description_are_refused(data):
    with pytest.raises(DescriptionRejected, match=r"^the run description is refused: it is malf"):
        read_description(data)


def test_an_unknown_version_is_refused_although_rightly_signed(wire, monkeypatch):
    monkeypatch.setattr("fedcondense.exchange.run_description.VERSION", 2)
    signed = sign_description(wire.description, wire.server)
    monkeypatch.undo()

    with pytest.raises(DescriptionRejected, match="its version is unknown"):
        read_description(signed)


def test_a_changed_byte_is_refused_wherever_it_is(wire):
    signed = sign_description(wire.description, wire.server)

    for at in range(0, len(signed), 7):
        changed = signed[:at] + bytes([signed[at] ^ 1]) + signed[at + 1 :]
        with pytest.raises(DescriptionRejected):
            verify_description(changed, pinned=wire.server.fingerprint, study=wire.study)
