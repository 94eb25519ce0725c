"""The TLS authority and the server's certificate: what a site's TLS library accepts of them."""

from __future__ import annotations

import ssl
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from fedcondense.errors import KeyFileError
from fedcondense.exchange.certificates import (
    Authority,
    ServerTls,
    certificate_fingerprint,
    check_server_tls,
    create_authority,
    expiry,
    issue_certificate,
    read_certificate,
)
from fedcondense.exchange.keys import SigningKey, fingerprint

NAMES = ("consortium.example.org", "192.0.2.7")
NOW = datetime.now(UTC)


def authority_in(folder: Path) -> Authority:
    authority = Authority(folder / "authority.pem", folder / "authority.key")
    create_authority(authority, "chest")
    return authority


def tls_in(folder: Path, authority: Authority, names: tuple[str, ...] = NAMES) -> ServerTls:
    files = ServerTls(folder / "server.pem", folder / "server.key", authority.certificate)
    issue_certificate(files, authority, names)
    return files


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return authority_in(tmp_path)


@pytest.fixture
def tls(tmp_path: Path, authority: Authority) -> ServerTls:
    return tls_in(tmp_path, authority)


def handshake(files: ServerTls, trusted: Path, name: str) -> str | None:
    """The TLS version that a client which trusts one authority and the server agree on, offline."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certificate, files.key)
    client = ssl.create_default_context(cafile=trusted)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(back, there, server_hostname=name),
        server.wrap_bio(there, back, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[0].version()


@pytest.mark.parametrize("name", [*NAMES, "localhost", "127.0.0.1"])
def test_a_site_that_trusts_the_authority_reaches_the_server_by_each_of_its_names(
    tls: ServerTls, name: str
) -> None:
    assert handshake(tls, tls.authority, name) == "TLSv1.3"


def test_a_site_refuses_the_server_by_a_name_that_is_not_in_its_certificate(
    tls: ServerTls,
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=r"mismatch"):
        handshake(tls, tls.authority, "elsewhere.example.org")


def test_a_site_refuses_a_server_of_another_authority(tls: ServerTls, tmp_path: Path) -> None:
    other = authority_in(tmp_path / "other")

    with pytest.raises(ssl.SSLCertVerificationError, match=r"self-signed|unable to get"):
        handshake(tls, other.certificate, NAMES[0])


def test_the_certificate_of_a_server_cannot_make_certificates(
    tls: ServerTls, tmp_path: Path
) -> None:
    forged = tls_in(tmp_path / "forged", Authority(tls.certificate, tls.key))

    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(forged, tls.authority, NAMES[0])


def test_keys_are_on_p384_and_nobody_else_can_read_them(
    authority: Authority, tls: ServerTls
) -> None:
    for key, certificate in ((authority.key, authority.certificate), (tls.key, tls.certificate)):
        public = read_certificate(certificate).public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        assert isinstance(public.curve, ec.SECP384R1)
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_the_authority_lasts_ten_years_and_a_certificate_two(
    authority: Authority, tls: ServerTls
) -> None:
    assert (expiry(authority.certificate) - NOW).days in (3649, 3650)
    assert (expiry(tls.certificate) - NOW).days in (729, 730)  # seconds pass since NOW
    constraints = read_certificate(authority.certificate).extensions.get_extension_for_class(
        x509.BasicConstraints
    )
    assert (constraints.critical, constraints.value.path_length) == (True, 0)


def test_nothing_is_ever_overwritten(authority: Authority, tls: ServerTls) -> None:
    before = {path: path.read_bytes() for path in authority.key.parent.iterdir()}

    with pytest.raises(KeyFileError, match=r"authority.key: the key file exists"):
        create_authority(authority, "chest")
    with pytest.raises(KeyFileError, match=r"server.key: the key file exists"):
        issue_certificate(tls, authority, NAMES)

    assert {path: path.read_bytes() for path in authority.key.parent.iterdir()} == before


def test_a_renewed_certificate_asks_nothing_of_the_sites(
    authority: Authority, tls: ServerTls
) -> None:
    for path in (tls.certificate, tls.key):
        path.rename(path.with_suffix(".old"))

    issue_certificate(tls, authority, ("renamed.example.org",))

    assert handshake(tls, authority.certificate, "renamed.example.org") == "TLSv1.3"


def test_an_authoritys_key_belongs_to_its_certificate(authority: Authority, tmp_path: Path) -> None:
    other = authority_in(tmp_path / "other")

    with pytest.raises(KeyFileError, match=r"authority.key: not the key of authority.pem"):
        tls_in(tmp_path, replace(authority, key=other.key))


def test_a_good_certificate_says_when_it_ends(tls: ServerTls) -> None:
    assert check_server_tls(tls, NAMES, now=NOW) == expiry(tls.certificate)


@pytest.mark.parametrize(
    ("years", "why"), [(2.1, "it ended on"), (-0.1, "it does not begin before")]
)
def test_a_certificate_out_of_its_time_is_refused(tls: ServerTls, years: float, why: str) -> None:
    with pytest.raises(KeyFileError, match=why):
        check_server_tls(tls, NAMES, now=NOW + timedelta(days=365 * years))


def test_a_certificate_without_a_name_that_sites_use_is_refused(tls: ServerTls) -> None:
    with pytest.raises(KeyFileError, match=r"it does not name 198.51.100.1, new.example.org"):
        check_server_tls(tls, (*NAMES, "new.example.org", "198.51.100.1"), now=NOW)


def test_foreign_files_are_named(tls: ServerTls, tmp_path: Path) -> None:
    other = tls_in(tmp_path / "other", authority_in(tmp_path / "other"))

    with pytest.raises(KeyFileError, match=r"its key is not server.key"):
        check_server_tls(replace(tls, key=other.key), NAMES, now=NOW)
    with pytest.raises(KeyFileError, match=r"authority.pem did not issue it"):
        check_server_tls(replace(tls, authority=other.authority), NAMES, now=NOW)


def test_what_is_no_certificate_or_key_is_named_without_its_content(
    tls: ServerTls, tmp_path: Path
) -> None:
    SigningKey.generate().save(tmp_path / "signing.key")
    (tmp_path / "note.pem").write_text("a secret of somebody")

    for files, name in (
        (replace(tls, certificate=tmp_path / "note.pem"), "note.pem: not a certificate"),
        (replace(tls, certificate=tmp_path / "gone.pem"), "gone.pem: no such file"),
        (replace(tls, key=tmp_path / "signing.key"), "signing.key: not a TLS key"),
    ):
        with pytest.raises(KeyFileError, match=name) as refused:
            check_server_tls(files, NAMES, now=NOW)
        assert "secret of somebody" not in str(refused.value)


def test_a_readable_key_is_refused(tls: ServerTls) -> None:
    tls.key.chmod(0o640)

    with pytest.raises(KeyFileError, match=r"server.key: group or others can read it"):
        check_server_tls(tls, NAMES, now=NOW)


def test_an_authority_is_compared_by_its_fingerprint(authority: Authority) -> None:
    der = ssl.PEM_cert_to_DER_cert(authority.certificate.read_text())

    assert certificate_fingerprint(authority.certificate) == fingerprint("X.509", der)
