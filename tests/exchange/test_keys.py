from __future__ import annotations

import copy
import hashlib
import stat
from pathlib import Path

import pytest

from fedcondense.errors import KeyFileError
from fedcondense.exchange.keys import (
    OpeningKey,
    Recipient,
    SigningKey,
    delete_key,
    fingerprint,
    fingerprint_digits,
    verify_signature,
)

# RFC 8032, section 7.1, test 1: secret key, public key, signature of the empty message.
SECRET = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
SIGNATURE = bytes.fromhex(
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555"
    "fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
)


def test_signatures_are_those_of_rfc_8032():
    key = SigningKey(SECRET)

    signature = key.sign(b"")

    assert key.public == PUBLIC
    assert signature == SIGNATURE
    assert verify_signature(PUBLIC, signature, b"")


@pytest.mark.parametrize(
    ("public", "signature", "message"),
    [
        (PUBLIC, SIGNATURE, b"other"),
        (PUBLIC, bytes(64), b""),
        (PUBLIC, b"", b""),
        (bytes(32), SIGNATURE, b""),
        (b"short", SIGNATURE, b""),
    ],
)
def test_any_other_signature_message_or_key_does_not_verify(public, signature, message):
    assert not verify_signature(public, signature, message)


def test_a_fingerprint_is_sixteen_groups_of_four_digits_over_suite_nul_and_key():
    digest = hashlib.sha256(b"Ed25519\0" + PUBLIC).hexdigest()

    shown = SigningKey(SECRET).fingerprint

    assert [len(group) for group in shown.split(" ")] == [4] * 16
    assert shown.replace(" ", "") == digest
    assert shown == fingerprint("Ed25519", PUBLIC)


@pytest.mark.parametrize("written", ["AB CD", "ab:cd", "ab-cd", " abcd\n"])
def test_a_fingerprint_is_the_same_however_a_person_wrote_it(written):
    assert fingerprint_digits(written) == "abcd"


@pytest.mark.parametrize("kind", [SigningKey, OpeningKey])
def test_a_stored_key_is_private_and_comes_back(kind, tmp_path):
    path = tmp_path / "keys" / "one.key"
    key = kind.generate()

    key.save(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert repr(kind.load(path)) == repr(key)


@pytest.mark.parametrize("kind", [SigningKey, OpeningKey])
def test_a_key_file_is_never_overwritten(kind, tmp_path):
    path = tmp_path / "one.key"
    kind.generate().save(path)
    before = path.read_bytes()

    with pytest.raises(KeyFileError, match=r"^one\.key: the key file exists$"):
        kind.generate().save(path)

    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o666])
def test_a_key_file_that_others_can_touch_is_refused(mode, tmp_path):
    path = tmp_path / "signing.key"
    SigningKey.generate().save(path)
    path.chmod(mode)

    with pytest.raises(KeyFileError, match=r"^signing\.key: group or others can read it$") as error:
        SigningKey.load(path)

    assert error.value.code == "FC403"
    assert "chmod 600" in error.value.hint


def test_a_missing_key_file_is_named(tmp_path):
    with pytest.raises(KeyFileError, match=r"^absent\.key: no such file or directory$"):
        SigningKey.load(tmp_path / "absent.key")


def test_a_link_or_a_folder_is_no_key_file(tmp_path):
    SigningKey.generate().save(tmp_path / "one.key")
    (tmp_path / "link.key").symlink_to(tmp_path / "one.key")

    with pytest.raises(KeyFileError, match=r"^link\.key: "):
        SigningKey.load(tmp_path / "link.key")
    with pytest.raises(KeyFileError, match=": not a file"):
        SigningKey.load(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{}", "fedcondense-signing-key-v1 00\n", "fedcondense-signing-key-v1 zz\n", "\xff"]
)
def test_a_malformed_key_file_is_refused_without_its_content(text, tmp_path):
    path = tmp_path / "signing.key"
    path.write_text(text, encoding="latin-1")
    path.chmod(0o600)

    with pytest.raises(KeyFileError, match=r"^signing\.key: not a key file of this kind$"):
        SigningKey.load(path)


def test_one_kind_of_key_is_not_taken_for_the_other(tmp_path):
    path = tmp_path / "opening.key"
    OpeningKey.generate().save(path)

    with pytest.raises(KeyFileError, match="not a key file of this kind"):
        SigningKey.load(path)


@pytest.mark.parametrize("kind", [SigningKey, OpeningKey])
def test_the_text_of_a_key_holds_no_part_of_its_secret(kind, tmp_path: Path):
    path = tmp_path / "one.key"
    key = kind.generate()
    key.save(path)
    secret = path.read_text().split()[1]

    shown = f"{key!r} {key} {vars(key)}"

    assert not any(secret[at : at + 16] in shown for at in range(0, len(secret), 16))


@pytest.mark.parametrize("kind", [SigningKey, OpeningKey])
def test_a_key_is_neither_copied_nor_sent_to_another_process(kind):
    with pytest.raises(TypeError, match="does not travel"):
        copy.deepcopy(kind.generate())  # asks for the same reduced form as pickling


def test_a_recipient_is_the_ml_kem_key_then_the_x25519_key():
    recipient = OpeningKey(bytes(range(96))).recipient

    assert len(recipient.raw) == 1184 + 32
    # X25519 of the scalar 64..95 with the base point; RFC 7748 by another implementation.
    assert recipient.raw[1184:] == _x25519_public(bytes(range(64, 96)))


def test_a_recipient_of_another_length_is_refused():
    with pytest.raises(ValueError, match="1,216 bytes"):
        Recipient(bytes(32))


def _x25519_public(secret: bytes) -> bytes:
    """RFC 7748, section 5: Montgomery ladder over 2^255 - 19, u = 9."""
    p, a24 = 2**255 - 19, 121665
    k = int.from_bytes(secret, "little") & ~7 & ~(1 << 255) | 1 << 254
    x1, x2, z2, x3, z3, swap = 9, 1, 0, 9, 1, 0
    for t in reversed(range(255)):
        bit = k >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb = d * a % p, c * b % p
        x3, z3 = pow(da + cb, 2, p), x1 * pow(da - cb, 2, p) % p
        aa, bb = a * a % p, b * b % p
        e = aa - bb
        x2, z2 = aa * bb % p, e * (aa + a24 * e) % p
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, p - 2, p) % p).to_bytes(32, "little")


def test_a_deleted_key_is_overwritten_and_gone(tmp_path):
    path, link = tmp_path / "one.key", tmp_path / "link"
    OpeningKey.generate().save(path)
    length = path.stat().st_size
    link.hardlink_to(path)

    delete_key(path)
    delete_key(path)  # once more is no error

    assert not path.exists()
    assert link.read_bytes() == bytes(length)


def test_a_link_is_not_followed_when_a_key_is_deleted(tmp_path):
    (tmp_path / "other").write_text("somebody's")
    (tmp_path / "one.key").symlink_to(tmp_path / "other")

    with pytest.raises(OSError, match="symbolic links"):
        delete_key(tmp_path / "one.key")

    assert (tmp_path / "other").read_text() == "somebody's"
