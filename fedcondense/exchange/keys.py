"""Keys: created, stored so that nobody else can read them, and named by a fingerprint.

A key is never printed: its text form is its fingerprint. A key file is one line of ASCII, the
kind and the secret in hex; it has mode 0600, is created exclusively and never overwritten.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey

from fedcondense.errors import KeyFileError
from fedcondense.exchange.contribution import SUITE
from fedcondense.files.storage import write_exclusively

SIGNING_SUITE = "Ed25519"
_MLKEM_PUBLIC, _X25519, _MLKEM_SEED = 1184, 32, 64  # bytes: FIPS 203 table 3, RFC 7748, FIPS 203
RECIPIENT_BYTES = _MLKEM_PUBLIC + _X25519
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def fingerprint(suite: str, raw: bytes) -> str:
    """SHA-256 over suite name, NUL and raw public bytes: 16 groups of 4 hex digits."""
    digits = hashlib.sha256(suite.encode("ascii") + b"\0" + raw).hexdigest()
    return " ".join(re.findall("....", digits))


def fingerprint_digits(shown: str) -> str:
    """A fingerprint as it stands in a manifest: its 64 digits, however a person wrote it."""
    return re.sub(r"[\s:-]", "", shown).lower()


def signing_fingerprint(public: bytes) -> str:
    """The fingerprint of an Ed25519 public key."""
    return fingerprint(SIGNING_SUITE, public)


def verify_signature(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` is that of `message` by the Ed25519 key `public` (RFC 8032)."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


class SigningKey:
    """An Ed25519 key of a site, or of the server operator who signs run descriptions."""

    def __init__(self, secret: bytes) -> None:
        """Take the 32 secret bytes of RFC 8032."""
        self._key = Ed25519PrivateKey.from_private_bytes(secret)

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """Read a key file.

        Raises:
            KeyFileError: it is missing, malformed, or group or others have any access to it.
        """
        return cls(_read_secret(path, "fedcondense-signing-key-v1", 32))

    def save(self, path: Path) -> None:
        """Write a new key file.

        Raises:
            KeyFileError: the file exists; it is left as it is.
        """
        _write_secret(path, "fedcondense-signing-key-v1", self._key.private_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of the signature (RFC 8032)."""
        return self._key.sign(message)

    @property
    def public(self) -> bytes:
        """The 32 raw public bytes."""
        return self._key.public_key().public_bytes_raw()

    @property
    def fingerprint(self) -> str:
        """What is read out over the telephone."""
        return signing_fingerprint(self.public)

    def __repr__(self) -> str:
        return f"SigningKey({self.fingerprint})"

    def __reduce__(self) -> str:
        raise TypeError("a signing key does not travel between processes")


@dataclass(frozen=True)
class Recipient:
    """The public half of an opening key: 1,184 bytes of ML-KEM-768, then 32 of X25519."""

    raw: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.raw) != RECIPIENT_BYTES:
            raise ValueError("a recipient has 1,216 bytes")

    @property
    def fingerprint(self) -> str:
        """What is read out over the telephone."""
        return fingerprint(SUITE, self.raw)

    def public_key(self) -> MLKEM768X25519PublicKey:
        """The key that HPKE encrypts to.

        Raises:
            ValueError: the bytes are no such key.
        """
        return MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(self.raw[:_MLKEM_PUBLIC]),
            X25519PublicKey.from_public_bytes(self.raw[_MLKEM_PUBLIC:]),
        )


class OpeningKey:
    """The hybrid key of one run that contributions are sealed to; only its holder opens them."""

    def __init__(self, secret: bytes) -> None:
        """Take 64 bytes of ML-KEM-768 seed, then 32 of X25519."""
        self._mlkem = MLKEM768PrivateKey.from_seed_bytes(secret[:_MLKEM_SEED])
        self._x25519 = X25519PrivateKey.from_private_bytes(secret[_MLKEM_SEED:])

    @classmethod
    def generate(cls) -> OpeningKey:
        """A new key from the operating system's randomness."""
        mlkem, x25519 = MLKEM768PrivateKey.generate(), X25519PrivateKey.generate()
        return cls(mlkem.private_bytes_raw() + x25519.private_bytes_raw())

    @classmethod
    def load(cls, path: Path) -> OpeningKey:
        """Read a key file.

        Raises:
            KeyFileError: it is missing, malformed, or group or others have any access to it.
        """
        return cls(_read_secret(path, "fedcondense-opening-key-v1", _MLKEM_SEED + _X25519))

    def save(self, path: Path) -> None:
        """Write a new key file.

        Raises:
            KeyFileError: the file exists; it is left as it is.
        """
        secret = self._mlkem.private_bytes_raw() + self._x25519.private_bytes_raw()
        _write_secret(path, "fedcondense-opening-key-v1", secret)

    @property
    def recipient(self) -> Recipient:
        """The public half, for the run description."""
        return Recipient(
            self._mlkem.public_key().public_bytes_raw()
            + self._x25519.public_key().public_bytes_raw()
        )

    def private_key(self) -> MLKEM768X25519PrivateKey:
        """The key that HPKE decrypts with."""
        return MLKEM768X25519PrivateKey(self._mlkem, self._x25519)

    def __repr__(self) -> str:
        return f"OpeningKey({self.recipient.fingerprint})"

    def __reduce__(self) -> str:
        raise TypeError("an opening key does not travel between processes")


def write_privately(path: Path, secret: bytes) -> None:
    """Write a new file that nobody else can read.

    Raises:
        KeyFileError: the file exists; it is left as it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        write_exclusively(path, secret, mode=0o600)
    except FileExistsError:
        raise KeyFileError(
            f"{path.name}: the key file exists", hint="keep it, or move it away first"
        ) from None


def _write_secret(path: Path, kind: str, secret: bytes) -> None:
    write_privately(path, f"{kind} {secret.hex()}\n".encode("ascii"))


def _read_secret(path: Path, kind: str, length: int) -> bytes:
    text = read_privately(path)
    match = re.fullmatch(rf"{kind} ([0-9a-f]{{{2 * length}}})\n", text.decode("ascii", "replace"))
    if not match:
        raise KeyFileError(
            f"{path.name}: not a key file of this kind", hint="name the file that init wrote"
        )
    return bytes.fromhex(match[1])


def read_privately(path: Path) -> bytes:
    """The first kilobyte of a file that nobody else can read.

    The mode is that of the opened file, so it cannot be exchanged in between.

    Raises:
        KeyFileError: it is missing, no plain file, or group or others have any access to it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise KeyFileError(
            f"{path.name}: {(error.strerror or 'unreadable').lower()}",
            hint="name a key file that this user can read",
        ) from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise KeyFileError(f"{path.name}: not a file", hint="name the file that init wrote")
        if mode & _OTHERS:
            raise KeyFileError(
                f"{path.name}: group or others can read it",
                hint=f"make a new key, or chmod 600 {path.name} if nobody has read it",
            )
        return os.read(descriptor, 1024)
    finally:
        os.close(descriptor)


def delete_key(path: Path) -> None:
    """Overwrite a key file and delete it; one that is gone already is no error.

    On journaling file systems, flash and in backups this is best effort.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        os.write(descriptor, bytes(os.fstat(descriptor).st_size))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    path.unlink(missing_ok=True)
