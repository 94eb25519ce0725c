"""The first day of a site: everything made once, for nobody else's eyes, never overwritten."""

from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path

import pytest

from fedcondense.config.site import load_site
from fedcondense.errors import KeyFileError, SettingsError
from fedcondense.exchange.enrolment_request import read_enrolment
from fedcondense.exchange.keys import SigningKey
from fedcondense.exchange.node_key import NodeKey
from fedcondense.site.enrolment import init_site
from fedcondense.site.readiness import UNKNOWN_DIGEST


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lakeside" / "SITE.toml"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_site_gets_settings_keys_and_a_request_that_carries_them(path: Path) -> None:
    made = init_site(path)

    site, request = load_site(path), read_enrolment(made.request)
    assert site.name == made.name == request.site == "lakeside"
    assert SigningKey.load(site.signing_key).fingerprint == made.signing
    assert NodeKey.load(site.node_key).fingerprint == made.node
    assert (request.signing_fingerprint, request.node_fingerprint) == (made.signing, made.node)
    assert request.officer_key is None
    assert request.expires == made.expires > time.time() + 300 * 24 * 3600


def test_secrets_are_for_nobody_else(path: Path) -> None:
    init_site(path)

    site = load_site(path)
    assert mode(site.state) == 0o700
    assert [mode(key) for key in (site.signing_key, site.node_key, path)] == [0o600] * 3


def test_nothing_points_at_a_study_or_server_before_the_operator_said_so(path: Path) -> None:
    init_site(path)

    site = load_site(path)
    assert site.study_digest == site.run_signing_fingerprint == UNKNOWN_DIGEST
    assert site.study == path.parent / "study.toml"
    assert not site.study.exists()


def test_two_sites_differ_in_their_secret_seed(tmp_path: Path) -> None:
    paths = [tmp_path / name / "SITE.toml" for name in ("lakeside", "hillside")]

    for path in paths:
        init_site(path)

    assert load_site(paths[0]).seed != load_site(paths[1]).seed


def test_the_name_may_be_another_than_the_folders(path: Path) -> None:
    assert init_site(path, "st-mary").name == "st-mary"


@pytest.mark.parametrize("name", ["St Mary", "st.mary", "", "-mary", "m" * 41, "../mary"])
def test_a_name_that_cannot_be_one_is_refused_before_anything_is_made(
    path: Path, name: str
) -> None:
    with pytest.raises(SettingsError, match="cannot be the name of a site"):
        init_site(path, name or "\n")

    assert not path.parent.exists()


def test_a_second_request_is_not_written_over_the_first(path: Path) -> None:
    made = init_site(path)
    before = made.request.read_bytes()

    with pytest.raises(SettingsError, match="there is one already"):
        init_site(path)

    assert made.request.read_bytes() == before


def test_what_is_there_is_kept_when_the_request_is_made_anew(path: Path) -> None:
    first = init_site(path)
    text = path.read_text()
    first.request.unlink()

    again = init_site(path)

    assert (again.signing, again.node) == (first.signing, first.node)
    assert path.read_text() == text


def test_the_settings_of_another_site_are_not_taken_over(path: Path) -> None:
    init_site(path).request.unlink()

    with pytest.raises(SettingsError, match="is there already, of the site lakeside"):
        init_site(path, "hillside")


def test_a_key_that_others_could_read_is_not_enrolled(path: Path) -> None:
    init_site(path).request.unlink()
    load_site(path).signing_key.chmod(0o644)

    with pytest.raises(KeyFileError, match="group or others"):
        init_site(path)

    assert not (path.parent / "enrolment-request.json").exists()


def test_a_data_officer_gets_a_key_of_their_own_where_they_want_it(
    path: Path, tmp_path: Path
) -> None:
    stick = tmp_path / "stick" / "officer.key"

    made = init_site(path, officer_key=stick)

    officer = SigningKey.load(stick)
    assert made.officer == officer.fingerprint != made.signing
    assert read_enrolment(made.request).officer_key == officer.public.hex()


def test_a_folder_that_cannot_be_written_is_named(path: Path, monkeypatch) -> None:
    path.parent.parent.joinpath("lakeside").touch()
    with pytest.raises(SettingsError, match=f"{path.parent}: file exists") as caught:
        init_site(path, "lakeside")
    assert caught.value.hint == "give a path in a folder that this user can write"

    path.parent.unlink()
    path.parent.mkdir()

    def refuse(name: Path, *_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(name))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(SettingsError) as caught:
        init_site(path, "lakeside")
    assert caught.value.message == f"{path.parent}: permission denied"
