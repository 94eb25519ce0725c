"""The key of a site's Flower node: one curve, one form, for nobody else's eyes."""

from __future__ import annotations

import copy
import pickle  # noqa: TID251  (what must not work)
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)

from fedcondense.errors import KeyFileError
from fedcondense.exchange.keys import fingerprint
from fedcondense.exchange.node_key import NodeKey, is_node_key, node_fingerprint


def written(path: Path, key: object) -> Path:
    """A private key in OpenSSH form, for this user alone."""
    form = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    path.write_bytes(form)
    path.chmod(0o600)
    return path


def test_a_saved_key_comes_back_and_nobody_else_can_read_it(tmp_path):
    key, path = NodeKey.generate(), tmp_path / "keys" / "node.key"

    key.save(path)

    assert NodeKey.load(path).public == key.public
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_key_file_is_never_overwritten(tmp_path):
    path = tmp_path / "node.key"
    NodeKey.generate().save(path)
    before = path.read_bytes()

    with pytest.raises(KeyFileError, match="exists"):
        NodeKey.generate().save(path)

    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610])
def test_a_key_file_that_others_reach_is_refused(tmp_path, mode):
    path = tmp_path / "node.key"
    NodeKey.generate().save(path)
    path.chmod(mode)

    with pytest.raises(KeyFileError, match="group or others"):
        NodeKey.load(path)


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()],
    ids=["another curve", "another algorithm"],
)
def test_another_key_is_refused(tmp_path, key):
    path = written(tmp_path / "node.key", key)

    with pytest.raises(KeyFileError, match="not a node key"):
        NodeKey.load(path)


def test_bytes_that_are_no_key_are_refused_without_being_quoted(tmp_path):
    path = tmp_path / "node.key"
    path.write_text("Jane Doe")
    path.chmod(0o600)

    with pytest.raises(KeyFileError) as error:
        NodeKey.load(path)

    assert "Jane" not in error.value.message + error.value.hint


def test_the_fingerprint_is_that_of_the_openssh_line():
    key = NodeKey.generate()

    assert key.public.startswith("ecdsa-sha2-nistp384 AAAA")
    assert key.fingerprint == node_fingerprint(key.public)
    assert key.fingerprint == fingerprint("ecdsa-sha2-nistp384", key.public.encode())
    assert key.public not in repr(key)


def test_flower_is_given_both_halves_of_the_same_key():
    key = NodeKey.generate()

    private, public = key.pair

    assert private.public_key() == public == load_pem_public_key(key.public_pem)


@pytest.mark.parametrize("carry", [pickle.dumps, copy.copy])
def test_a_key_does_not_travel(carry):
    with pytest.raises(TypeError, match="does not travel"):
        carry(NodeKey.generate())


def test_only_a_point_on_p384_in_our_own_form_is_a_node_key():
    good = NodeKey.generate().public
    other = ec.generate_private_key(ec.SECP256R1()).public_key()

    assert is_node_key(good)
    for wrong in (
        "",
        good + " jane@doe",
        good + "\n",
        good.replace(" ", "  "),
        good[:-8],
        good.replace("nistp384", "nistp256"),
        other.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(),
        "ecdsa-sha2-nistp384 " + "A" * 200,
    ):
        assert not is_node_key(wrong)
