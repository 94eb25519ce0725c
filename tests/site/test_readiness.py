"""What must be in order before a site takes part: each fault is named, with what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from joined_kit import Hospital, hospital
from wire_kit import small_study

from fedcondense.config.site import load_site
from fedcondense.errors import KeyFileError, LimitExceeded, ReleaseRefused, SettingsError
from fedcondense.exchange.keys import SigningKey
from fedcondense.site.readiness import (
    UNKNOWN_DIGEST,
    agreed_study,
    officer_of,
    own_keys,
    pinned_fingerprint,
    private_folder,
    releasable_study,
    server_of,
)


@pytest.fixture
def lakeside(tmp_path: Path) -> Hospital:
    return hospital(tmp_path / "lakeside")


def test_a_site_in_order_says_whom_it_follows(lakeside: Hospital) -> None:
    site = load_site(lakeside.settings)

    signing, node = own_keys(site)

    assert server_of(site).address.startswith("127.0.0.1:")
    assert agreed_study(site) == lakeside.study
    assert pinned_fingerprint(site) == lakeside.operator.fingerprint
    assert node.public == lakeside.node_public
    assert signing.fingerprint == SigningKey.load(site.signing_key).fingerprint
    assert officer_of(site) is None


def test_a_study_that_is_not_the_pinned_one_is_shown_by_its_digest(lakeside: Hospital) -> None:
    lakeside.change(study_digest="ab" * 32)

    with pytest.raises(SettingsError, match=lakeside.study.digest):
        agreed_study(load_site(lakeside.settings))


def test_a_study_beyond_the_sites_limits_is_refused(lakeside: Hospital) -> None:
    lakeside.change(limits={"max_synthetic_images": 1})

    with pytest.raises(LimitExceeded):
        agreed_study(load_site(lakeside.settings))


@pytest.mark.parametrize(
    ("distill", "why"),
    [({"method": "idm", "start": "real"}, "real-start"), ({"method": "herding"}, "coreset")],
)
def test_a_study_of_which_nothing_could_be_released_is_not_joined(
    tmp_path: Path, distill: dict[str, str], why: str
) -> None:
    site = hospital(tmp_path / "lakeside", study=small_study(distill=distill, quorum=1))

    with pytest.raises(ReleaseRefused, match=why):
        releasable_study(load_site(site.settings))
    assert agreed_study(load_site(site.settings)) == site.study


def test_a_study_from_noise_may_be_joined(lakeside: Hospital) -> None:
    assert releasable_study(load_site(lakeside.settings)) == lakeside.study


@pytest.mark.parametrize("pinned", ["", "abcd", UNKNOWN_DIGEST, "g" * 64])
def test_a_fingerprint_that_nobody_gave_is_refused(lakeside: Hospital, pinned: str) -> None:
    lakeside.change(run_signing_fingerprint=pinned)

    with pytest.raises(SettingsError, match="not a fingerprint") as error:
        pinned_fingerprint(load_site(lakeside.settings))

    assert "by voice or on paper" in error.value.hint


def test_a_site_without_a_server_or_its_authority_is_refused(lakeside: Hospital) -> None:
    lakeside.change(server={"address": "server:8444", "authority": "missing.pem"})
    with pytest.raises(SettingsError, match=r"missing\.pem: no such file"):
        server_of(load_site(lakeside.settings))

    (lakeside.folder / "missing.pem").write_text("Jane Doe")
    with pytest.raises(KeyFileError, match="not a certificate"):
        server_of(load_site(lakeside.settings))

    del lakeside.values["server"]
    lakeside.change()
    with pytest.raises(SettingsError, match=r"no \[server\]"):
        server_of(load_site(lakeside.settings))


@pytest.mark.parametrize(
    "address", ["server", "server:", ":8444", "https://server:8444", "server:8444/x", "a b:1"]
)
def test_an_address_is_a_host_and_a_port(lakeside: Hospital, address: str) -> None:
    lakeside.change(server={"address": address, "authority": "authority.pem"})

    with pytest.raises(SettingsError, match=r"server\.address"):
        load_site(lakeside.settings)


def test_an_officer_is_asked_for_only_where_one_must_approve(lakeside: Hospital) -> None:
    officer = SigningKey.generate()
    lakeside.change(release={"needs_approval": True})
    with pytest.raises(SettingsError, match=r"release\.officer"):
        officer_of(load_site(lakeside.settings))

    lakeside.change(release={"needs_approval": True, "officer": officer.fingerprint})
    assert officer_of(load_site(lakeside.settings)) == officer.fingerprint


def test_the_key_on_the_officers_stick_must_be_the_officers(lakeside: Hospital) -> None:
    SigningKey.generate().save(lakeside.folder / "officer.key")
    fingerprint = SigningKey.generate().fingerprint
    lakeside.change(
        release={"needs_approval": True, "officer": fingerprint, "officer_key": "officer.key"}
    )

    with pytest.raises(KeyFileError, match=r"not the key of release\.officer"):
        officer_of(load_site(lakeside.settings))


def test_a_folder_that_others_look_into_is_refused(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "state")
    assert folder.stat().st_mode & 0o777 == 0o700

    folder.chmod(0o750)
    with pytest.raises(SettingsError, match="others can look into it") as error:
        private_folder(folder)
    assert error.value.hint == f"chmod 700 {folder}"


def test_paths_in_site_toml_are_relative_to_its_folder(
    lakeside: Hospital, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lakeside.change(
        images={"kind": "folder", "path": "images"},
        keys={"node": "elsewhere/node.key"},
        release={"officer_key": "/media/officer.key"},
    )
    monkeypatch.chdir(tmp_path)

    site = load_site(Path("lakeside") / "SITE.toml")

    assert site.state == lakeside.folder / "state"
    assert site.images.path == lakeside.folder / "images"
    assert site.node_key == lakeside.folder / "elsewhere" / "node.key"
    assert site.signing_key == lakeside.folder / "state" / "keys" / "signing.key"
    assert site.release.officer_key == Path("/media/officer.key")


@pytest.mark.parametrize(
    ("name", "answer", "said"),
    [("getuid", 4711, "belongs to another user"), ("access", False, "cannot be written")],
)
def test_a_folder_that_this_user_cannot_use_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, answer: object, said: str
) -> None:
    folder = private_folder(tmp_path / "state")
    monkeypatch.setattr(os, name, lambda *_: answer)  # tests may run as root, who can do anything

    with pytest.raises(SettingsError, match=said) as error:
        private_folder(folder)

    assert str(folder) in error.value.message
    assert error.value.hint
