"""The key by which a site's Flower node proves itself to the SuperLink: ECDSA P-384.

It opens the connection and nothing else; a contribution's origin is proved by the site's signing
key. Flower reads it itself, in OpenSSH form.
"""

from __future__ import annotations

import re
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from fedcondense.errors import KeyFileError
from fedcondense.exchange.keys import fingerprint, read_privately, write_privately

NODE_SUITE = "ecdsa-sha2-nistp384"  # RFC 5656, section 6.2
_LINE = re.compile(rf"{NODE_SUITE} [A-Za-z0-9+/]+={{0,2}}")


class NodeKey:
    """An ECDSA key on P-384."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> NodeKey:
        """A new key from the operating system's randomness."""
        return cls(ec.generate_private_key(ec.SECP384R1()))

    @classmethod
    def load(cls, path: Path) -> NodeKey:
        """Read a key file in OpenSSH form, without a passphrase.

        Raises:
            KeyFileError: it is missing, malformed, or group or others have any access to it.
        """
        try:
            key = load_ssh_private_key(read_privately(path), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm, NotImplementedError):
            key = None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not _is_p384(key.curve):
            raise KeyFileError(
                f"{path.name}: not a node key: ECDSA on P-384 in OpenSSH form, no passphrase",
                hint="name the file that init wrote",
            )
        return cls(key)

    def save(self, path: Path) -> None:
        """Write a new key file.

        Raises:
            KeyFileError: the file exists; it is left as it is.
        """
        form = self._key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        write_privately(path, form)

    @property
    def public(self) -> str:
        """The public key as one OpenSSH line without a comment."""
        form = self._key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        return form.decode("ascii")

    @property
    def fingerprint(self) -> str:
        """What is read out over the telephone."""
        return node_fingerprint(self.public)

    @property
    def pair(self) -> tuple[ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey]:
        """Both halves as Flower takes them."""
        return self._key, self._key.public_key()

    @property
    def public_pem(self) -> bytes:
        """The public key as it stands in Flower's requests."""
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def __repr__(self) -> str:
        return f"NodeKey({self.fingerprint})"

    def __reduce__(self) -> str:
        raise TypeError("a node key does not travel between processes")


def node_fingerprint(public: str) -> str:
    """The fingerprint of a public node key, given as one OpenSSH line."""
    return fingerprint(NODE_SUITE, public.encode("ascii"))


def is_node_key(public: str) -> bool:
    """Whether `public` is one OpenSSH line of a point on P-384, written as we write it."""
    if not _LINE.fullmatch(public):
        return False
    try:
        key = load_ssh_public_key(public.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm, NotImplementedError):
        return False
    if not isinstance(key, ec.EllipticCurvePublicKey) or not _is_p384(key.curve):
        return False
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii") == public


def _is_p384(curve: ec.EllipticCurve) -> bool:
    return isinstance(curve, ec.SECP384R1)


def node_key_pem(public: str) -> bytes:
    """A public node key, given as one OpenSSH line, in the form that Flower lists and registers.

    Raises:
        ValueError: it is no node key.
    """
    if not is_node_key(public):
        raise ValueError("not a node key")
    key = load_ssh_public_key(public.encode("ascii"))
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
