"""The TLS authority of a consortium without its own, and the server's certificate.

Sites trust one authority file and nothing else, so a renewed certificate of the same authority asks
nothing of them. The authority lasts ten years, a certificate two: it is renewed by moving its two
files away and giving `fedcondense-server init` again, with the authority's key in its place.
Between renewals that key is best kept on a stick.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedcondense.errors import KeyFileError
from fedcondense.exchange.keys import fingerprint, read_privately, write_privately
from fedcondense.files.storage import write_exclusively

AUTHORITY_YEARS = 10
CERTIFICATE_YEARS = 2
RENEW_WITHIN = timedelta(days=30)  # before its end a certificate is called due
CERTIFICATE_SUITE = "X.509"
LOOPBACK = ("localhost", "127.0.0.1")  # by which the server's own processes call each other
_EARLIER = timedelta(days=1)  # a site whose clock is behind already accepts it
_LARGEST = 64 * 1024  # bytes of a certificate file
_PURPOSES = ("digital_signature", "key_cert_sign", "crl_sign")
_OTHER_PURPOSES = (
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True)
class Authority:
    """The files of a TLS authority: what sites trust, and the key that only `init` needs."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class ServerTls:
    """The files that the server's port needs: its certificate and key, and the authority's."""

    certificate: Path
    key: Path
    authority: Path


def create_authority(files: Authority, name: str) -> None:
    """Make a new authority on P-384; `name` is what people call it.

    Raises:
        KeyFileError: one of its files exists; it is left as it is.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    subject = _named(f"{name} authority")
    builder = (
        _builder(subject, subject, key.public_key(), AUTHORITY_YEARS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
    )
    _write_key(files.key, key)
    _write_certificate(files.certificate, builder.sign(key, hashes.SHA384()))


def issue_certificate(files: ServerTls, authority: Authority, names: Sequence[str]) -> None:
    """Make the server's key and certificate, which names every host and address that sites use.

    Raises:
        KeyFileError: one of its files exists, or the authority's two files are not a pair.
    """
    signer, issuer = _read_key(authority.key), read_certificate(authority.certificate)
    if _raw(signer.public_key()) != _raw(issuer.public_key()):
        raise KeyFileError(
            f"{authority.key.name}: not the key of {authority.certificate.name}",
            hint="put the two files of one authority beside each other",
        )
    key = ec.generate_private_key(ec.SECP384R1())
    every = dict.fromkeys([*names, *LOOPBACK])
    builder = (
        _builder(_named(names[0]), issuer.subject, key.public_key(), CERTIFICATE_YEARS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in every]), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    _write_key(files.key, key)
    _write_certificate(files.certificate, builder.sign(signer, hashes.SHA384()))


def read_certificate(path: Path) -> x509.Certificate:
    """The first certificate of a PEM file.

    Raises:
        KeyFileError: there is none.
    """
    try:
        with path.open("rb") as file:
            return x509.load_pem_x509_certificate(file.read(_LARGEST))
    except OSError as error:
        why = (error.strerror or "unreadable").lower()
    except ValueError:
        why = "not a certificate in PEM form"
    raise KeyFileError(
        f"{path.name}: {why}", hint="name the file that `fedcondense-server init` wrote"
    )


def certificate_fingerprint(path: Path) -> str:
    """What is read out over the telephone.

    Raises:
        KeyFileError: it is no certificate.
    """
    return fingerprint(CERTIFICATE_SUITE, read_certificate(path).public_bytes(Encoding.DER))


def expiry(path: Path) -> datetime:
    """When a certificate ends, UTC.

    Raises:
        KeyFileError: it is no certificate.
    """
    return read_certificate(path).not_valid_after_utc


def check_server_tls(files: ServerTls, names: Sequence[str], *, now: datetime) -> datetime:
    """When the server's certificate ends, after everything was looked at that a site would refuse.

    Raises:
        KeyFileError: a file is missing or foreign, the certificate is not valid now, not of this
            authority, or lacks one of `names` or of the loopback's.
    """
    key, certificate = _read_key(files.key), read_certificate(files.certificate)
    if _raw(key.public_key()) != _raw(certificate.public_key()):
        _refuse(files, f"its key is not {files.key.name}")
    authority = read_certificate(files.authority)
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        _refuse(files, f"{files.authority.name} did not issue it")
    if now < certificate.not_valid_before_utc:
        _refuse(files, f"it does not begin before {certificate.not_valid_before_utc:%Y-%m-%d}")
    for each, owner in ((certificate, "it"), (authority, "its authority")):
        if now >= each.not_valid_after_utc:
            _refuse(files, f"{owner} ended on {each.not_valid_after_utc:%Y-%m-%d}")
    if missing := sorted({*names, *LOOPBACK} - _names_of(certificate)):
        _refuse(files, f"it does not name {', '.join(missing)}")
    return certificate.not_valid_after_utc


def _refuse(files: ServerTls, why: str) -> None:
    raise KeyFileError(
        f"{files.certificate.name}: {why}",
        hint="move certificate and key away and give `fedcondense-server init` again",
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, years: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + timedelta(days=365 * years))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _named(name: str) -> x509.Name:
    shown = name[:64]  # RFC 5280, ub-common-name
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, shown)])


def _usage(*purposes: str) -> x509.KeyUsage:
    every = (*_PURPOSES, *_OTHER_PURPOSES)
    return x509.KeyUsage(**{purpose: purpose in purposes for purpose in every})


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names_of(certificate: x509.Certificate) -> set[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    hosts = found.get_values_for_type(x509.DNSName)
    return {*hosts, *map(str, found.get_values_for_type(x509.IPAddress))}


def _raw(key: object) -> bytes:
    assert isinstance(key, ec.EllipticCurvePublicKey), "read by _read_key, or made here"
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(read_privately(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeyFileError(
            f"{path.name}: not a TLS key: elliptic curve, PEM, no passphrase",
            hint="name the file that `fedcondense-server init` wrote",
        )
    return key


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    write_privately(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _write_certificate(path: Path, certificate: x509.Certificate) -> None:
    try:
        write_exclusively(path, certificate.public_bytes(Encoding.PEM), mode=0o644)
    except FileExistsError:
        raise KeyFileError(
            f"{path.name}: the certificate exists", hint="keep it, or move it away first"
        ) from None
