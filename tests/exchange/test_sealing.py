from __future__ import annotations

import hashlib
import inspect
import struct
from dataclasses import replace

import numpy as np
import pytest
from wire_kit import RUN, Wire, canonical, frame, payload_of, small_study

from fedcondense.errors import ContributionRejected, DescriptionRejected, ReleaseRefused
from fedcondense.exchange.contribution import Payload
from fedcondense.exchange.keys import OpeningKey, SigningKey
from fedcondense.exchange.run_description import Request
from fedcondense.exchange.sealing import open_sealed, read_manifest, seal, verify


def reason_of(blob: bytes, wire: Wire) -> str:
    with pytest.raises(ContributionRejected) as rejected:
        verify(blob, wire.expectation)
    return rejected.value.reason


def test_what_a_site_seals_the_server_opens(wire):
    opened = open_sealed(wire.sealed(), wire.expectation, wire.opening)

    assert opened.site == "site-1"
    assert opened.payload == payload_of(wire.study)


def test_the_manifest_names_routing_only(wire):
    manifest = read_manifest(wire.sealed())

    assert vars(manifest) == wire.manifest()


def test_sealing_adds_1136_bytes_and_a_frame(wire):
    blob = wire.sealed()

    assert (
        len(blob)
        == 8 + 4 + len(canonical(wire.manifest())) + 8 + wire.manifest()["body_bytes"] + 1136 + 64
    )


def test_sites_with_different_class_mixes_send_equally_many_bytes(wire):
    full = wire.sealed("site-1", (0, 0, 0, 1, 1, 1))
    sparse = wire.sealed("site-2", (1,), seed=1)

    assert len(full) == len(sparse)


def test_neither_pixels_nor_contents_are_readable_while_sealed(wire):
    blob, payload = wire.sealed(), payload_of(wire.study)

    assert payload.pixels[:16] not in blob
    assert payload.sha256.encode() not in blob
    assert b"idm" not in blob


def test_each_byte_of_the_head_is_protected(wire):
    blob = wire.sealed()
    head = 12 + len(canonical(wire.manifest())) + 8

    for at in range(head):
        changed = blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]
        with pytest.raises(ContributionRejected):
            verify(changed, wire.expectation)


def test_any_flipped_bit_is_refused(wire):
    blob = wire.sealed()
    rng = np.random.default_rng(0)

    for at in rng.integers(0, len(blob), 200).tolist():
        changed = blob[:at] + bytes([blob[at] ^ (1 << at % 8)]) + blob[at + 1 :]
        with pytest.raises(ContributionRejected):
            verify(changed, wire.expectation)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 2}, "version"),
        ({"suite": "X25519+HKDF-SHA256+AES-256-GCM"}, "suite"),
        ({"study_digest": "0" * 64}, "study"),
        ({"run": "0" * 32}, "run"),
        ({"round": 2}, "round"),
        ({"round": 0}, "round"),
        ({"purpose": "simulation"}, "purpose"),
        ({"purpose": "anything"}, "purpose"),
        ({"recipient": "0" * 64}, "recipient"),
        ({"body_bytes": 2**40}, "size"),
        ({"site": "site-9"}, "site"),
        ({"site": "site-2"}, "key"),
        ({"signing_key": "0" * 64}, "key"),
        ({"site": "../site"}, "manifest"),
        ({"site": "Site-1"}, "manifest"),
        ({"site": "s" * 41}, "manifest"),
        ({"site": ""}, "manifest"),
        ({"run": "0" * 31}, "manifest"),
        ({"run": RUN.upper()}, "manifest"),
        ({"study_digest": "z" * 64}, "manifest"),
        ({"signing_key": ""}, "manifest"),
        ({"recipient": "0" * 65}, "manifest"),
        ({"round": "1"}, "manifest"),
        ({"round": True}, "manifest"),
        ({"version": "1"}, "manifest"),
        ({"body_bytes": None}, "manifest"),
        ({"epsilon": 1}, "manifest"),
    ],
)
def test_a_manifest_of_something_else_is_refused_although_rightly_signed(wire, change, reason):
    assert reason_of(wire.blob(wire.manifest() | change), wire) == reason


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda text: text.replace(b":1,", b":1.0,", 1), "float"),
        (lambda text: text.replace(b":1,", b":NaN,", 1), "NaN"),
        (lambda text: text.replace(b":1,", b": 1,", 1), "space"),
        (lambda text: text.replace(b"site-1", "sité".encode()), "not ASCII"),
        (lambda text: text[:-1] + b',"version":1}', "duplicate key"),
        (lambda text: text[:-1], "cut off"),
        (lambda text: b"[" * 4000, "deep nesting"),
        (lambda text: text[:-1] + b',"x":{"x":{"x":{"x":{"x":{"x":1}}}}}}}', "seven levels"),
        (lambda text: text + b" " * (4097 - len(text)), "4,097 bytes"),
        (lambda text: b"", "nothing"),
        (lambda text: b"null", "no object"),
    ],
)
def test_a_manifest_that_is_not_canonical_is_refused(wire, spoil, fault):
    assert reason_of(wire.blob(spoil(canonical(wire.manifest()))), wire) == "manifest"


@pytest.mark.parametrize(
    ("described", "reason"),
    [({"run": "f" * 32}, "run"), ({"recipient": None}, "recipient")],
)
def test_a_contribution_to_another_run_is_refused(wire, described, reason):
    if "recipient" in described:
        described = {"recipient": OpeningKey.generate().recipient.raw.hex()}

    assert reason_of(wire.sealed(**described), wire) == reason


def test_a_contribution_to_another_round_is_refused(wire):
    assert reason_of(wire.sealed(round=2), wire) == "round"


def test_a_contribution_of_another_study_is_refused(wire):
    other = Wire(small_study(seed=1), opening=wire.opening, keys=wire.keys)

    assert reason_of(other.sealed(), wire) == "study"


def test_a_simulation_is_refused_by_a_run_for_release(wire):
    simulation = replace(wire, purpose="simulation")

    assert reason_of(simulation.sealed(), wire) == "purpose"


def test_a_key_that_is_not_enrolled_is_refused(wire):
    stranger = replace(wire, keys={"site-1": SigningKey.generate()})

    assert reason_of(stranger.sealed(), wire) == "key"


def test_a_site_that_is_not_enrolled_is_refused(wire):
    stranger = replace(wire, keys={"site-3": SigningKey.generate()})

    assert reason_of(stranger.sealed("site-3"), wire) == "site"


def test_a_signature_over_another_ciphertext_is_refused(wire):
    first, second = wire.sealed(seed=0), wire.sealed(seed=1)

    assert reason_of(first[:-64] + second[-64:], wire) == "signature"


def test_bytes_that_are_too_short_or_too_long_are_refused(wire):
    blob = wire.sealed()

    for cut in (0, 1, 8, 12, 100, 1220):
        assert reason_of(blob[:cut], wire) == "length"
    assert reason_of(blob[:-1], wire) == "length"
    assert reason_of(blob + b"\0", wire) == "length"
    assert reason_of(bytes(64 * 2**20 + 1), wire) == "length"


@pytest.mark.parametrize(
    "magic",
    [b"FEDCOND2", b"fedcond1", b"PK\x03\x04aaaa", b"\x93NUMPY\x01\x00", b"\x1f\x8b\x08aaaaa"],
)
def test_another_magic_is_refused(wire, magic):
    assert reason_of(magic + wire.sealed()[8:], wire) == "magic"


@pytest.mark.parametrize("length", [0, 1, 2**63, 2**64 - 1, 2**64 - 65_536])
def test_a_ciphertext_length_that_overlaps_or_overflows_is_refused(wire, length):
    blob = wire.sealed()
    at = 12 + len(canonical(wire.manifest()))

    assert reason_of(blob[:at] + struct.pack("<Q", length) + blob[at + 8 :], wire) == "length"


@pytest.mark.parametrize("length", [4097, 2**31, 2**32 - 1])
def test_a_manifest_length_above_its_limit_is_refused(wire, length):
    blob = wire.sealed()

    assert reason_of(blob[:8] + struct.pack("<I", length) + blob[12:], wire) == "manifest"


def test_a_ciphertext_that_is_shorter_than_the_manifest_says_is_refused(wire):
    text = canonical(wire.manifest())
    blob = frame(text, bytes(wire.manifest()["body_bytes"] + 1135), bytes(64))

    assert reason_of(blob, wire) == "size"


def test_a_body_that_is_consistently_longer_than_the_studys_ceiling_is_refused(wire):
    blob = wire.blob(
        wire.manifest(body_bytes=wire.manifest()["body_bytes"] + 1), wire.body() + b"\0"
    )

    assert reason_of(blob, wire) == "size"


def test_a_ciphertext_sealed_under_another_manifest_does_not_open(wire):
    manifest = canonical(wire.manifest())
    other = wire.blob(wire.manifest(round=2))
    start = 12 + len(manifest) + 8
    ciphertext = other[start:-64]
    signed = _signed(manifest, ciphertext, wire)

    verify(signed, wire.expectation)
    with pytest.raises(ContributionRejected, match=r"^contribution rejected: decryption$"):
        open_sealed(signed, wire.expectation, wire.opening)


def test_another_opening_key_does_not_open(wire):
    with pytest.raises(ContributionRejected, match=r"^contribution rejected: decryption$"):
        open_sealed(wire.sealed(), wire.expectation, OpeningKey.generate())


def test_a_rejection_names_no_value_from_the_bytes(wire):
    with pytest.raises(ContributionRejected) as rejected:
        verify(wire.blob(wire.manifest(run="f" * 32)), wire.expectation)

    assert str(rejected.value) == "contribution rejected: run"
    assert rejected.value.code == "FC402"
    assert rejected.value.__cause__ is None


@pytest.mark.parametrize("thing", ["payload", "dict", "none", "look-alike"])
def test_only_what_the_gate_released_is_sealed(wire, thing):
    released = wire.released()
    things: dict[str, Payload | object] = {
        "payload": released.payload,
        "dict": vars(released),
        "none": None,
        "look-alike": type("Released", (), vars(released))(),
    }
    bare = inspect.unwrap(seal)  # without the type checker that tests put around it

    with pytest.raises(TypeError, match="only what the gate released can be sealed"):
        bare(things[thing], Request(wire.description, 1), "site-1", wire.study, wire.keys["site-1"])


def test_what_was_released_for_a_simulation_is_not_sealed_for_a_release(wire):
    released = replace(wire, purpose="simulation").released()

    with pytest.raises(ReleaseRefused, match="released for another purpose") as refused:
        seal(released, Request(wire.description, 1), "site-1", wire.study, wire.keys["site-1"])

    assert refused.value.exit_code == 3


def test_nothing_is_sealed_for_a_run_of_another_study(wire):
    description = replace(wire.description, study_digest="0" * 64)

    with pytest.raises(DescriptionRejected, match="the run is of another study"):
        seal(wire.released(), Request(description, 1), "site-1", wire.study, wire.keys["site-1"])


def _signed(manifest: bytes, ciphertext: bytes, wire: Wire) -> bytes:
    digests = hashlib.sha256(manifest).digest() + hashlib.sha256(ciphertext).digest()
    signature = wire.keys["site-1"].sign(b"fedcondense/sig/v1\0" + digests)
    return frame(manifest, ciphertext, signature)
