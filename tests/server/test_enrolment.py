"""Who is enrolled, and that a revoked key never comes back."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from enrolment_kit import DAY, NOW, Applicant

from fedcondense.errors import EnrolmentRejected
from fedcondense.exchange.keys import SigningKey
from fedcondense.files.storage import write_atomically, write_json
from fedcondense.server import enrolment
from fedcondense.server.enrolment import Register, Standing, admit, keys_of
from fedcondense.server.run_directory import Enrolment, RunDirectory


@pytest.fixture
def register(tmp_path: Path) -> Register:
    made = Register(tmp_path / "enrolled", tmp_path / "revoked.jsonl")
    made.create()
    return made


@pytest.fixture
def mail(tmp_path: Path) -> Path:
    return tmp_path / "mail"


def test_an_enrolled_site_is_active_with_the_keys_that_it_asked_for(
    register: Register, mail: Path
) -> None:
    site = Applicant(officer=SigningKey.generate())

    register.enroll(site.write(mail), now=NOW)

    assert register.active(now=NOW) == {"lakeside": site.request}
    assert register.standing(now=NOW) == {"lakeside": Standing.ACTIVE}


def test_what_is_kept_is_the_sites_own_signed_file(register: Register, mail: Path) -> None:
    path = Applicant().write(mail)

    register.enroll(path, now=NOW)

    kept = register.enrolled / "lakeside.json"
    assert kept.read_bytes() == path.read_bytes()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(register.enrolled.stat().st_mode) == 0o700


def test_enrolling_the_same_file_again_changes_nothing(register: Register, mail: Path) -> None:
    path = Applicant().write(mail)

    register.enroll(path, now=NOW)
    register.enroll(path, now=NOW)

    assert list(register.active(now=NOW)) == ["lakeside"]


def test_a_site_that_is_over_is_not_active_and_may_ask_for_a_later_end(
    register: Register, mail: Path
) -> None:
    site = Applicant(expires=int(NOW) + DAY)
    register.enroll(site.write(mail), now=NOW)
    later = NOW + 2 * DAY

    assert register.active(now=later) == {}
    assert register.standing(now=later) == {"lakeside": Standing.EXPIRED}

    longer = replace(site, expires=int(later) + DAY)
    register.enroll(longer.write(mail), now=later)

    assert register.active(now=later) == {"lakeside": longer.request}


def test_a_request_that_is_over_is_refused(register: Register, mail: Path) -> None:
    path = Applicant(expires=int(NOW)).write(mail)

    with pytest.raises(EnrolmentRejected, match="lakeside: the request is over"):
        register.enroll(path, now=NOW)


def test_other_keys_under_an_enrolled_name_need_a_revocation_first(
    register: Register, mail: Path
) -> None:
    site, impostor = Applicant(), Applicant()
    register.enroll(site.write(mail), now=NOW)

    with pytest.raises(EnrolmentRejected, match="enrolled with other keys"):
        register.enroll(impostor.write(mail), now=NOW)

    assert register.active(now=NOW) == {"lakeside": site.request}


@pytest.mark.parametrize("shared", ["signing", "node"])
def test_no_two_sites_have_a_key_in_common(register: Register, mail: Path, shared: str) -> None:
    site = Applicant(officer=SigningKey.generate())
    register.enroll(site.write(mail), now=NOW)
    other = replace(
        Applicant("seaside", officer=SigningKey.generate()), **{shared: getattr(site, shared)}
    )

    with pytest.raises(EnrolmentRejected, match="seaside: one of its keys is lakeside's"):
        register.enroll(other.write(mail), now=NOW)


def test_one_officer_may_serve_two_sites_but_who_seals_approves_for_none(
    register: Register, mail: Path
) -> None:
    site = Applicant(officer=SigningKey.generate())
    register.enroll(site.write(mail), now=NOW)

    register.enroll(Applicant("seaside", officer=site.officer).write(mail), now=NOW)

    assert list(register.active(now=NOW)) == ["lakeside", "seaside"]
    for wrong in (Applicant("hill", officer=site.signing), Applicant("hill", signing=site.officer)):
        with pytest.raises(EnrolmentRejected, match="hill: a key that seals is an officer's too"):
            register.enroll(wrong.write(mail), now=NOW)
    alone = Applicant("hill")
    alone.officer = alone.signing
    with pytest.raises(EnrolmentRejected, match="hill: a key that seals is an officer's too"):
        register.enroll(alone.write(mail), now=NOW)


def test_a_revoked_site_is_gone_for_good(register: Register, mail: Path) -> None:
    path = Applicant().write(mail)
    register.enroll(path, now=NOW)

    register.revoke("lakeside", now=NOW)

    assert register.active(now=NOW) == {}
    assert register.standing(now=NOW) == {"lakeside": Standing.REVOKED}
    with pytest.raises(EnrolmentRejected, match="one of its keys was revoked"):
        register.enroll(path, now=NOW)


@pytest.mark.parametrize("kept", ["signing", "node", "officer"])
def test_no_revoked_key_comes_back_under_another_name_or_with_other_keys(
    register: Register, mail: Path, kept: str
) -> None:
    site = Applicant(officer=SigningKey.generate())
    register.enroll(site.write(mail), now=NOW)
    register.revoke("lakeside", now=NOW)
    again = replace(
        Applicant("seaside", officer=SigningKey.generate()), **{kept: getattr(site, kept)}
    )

    with pytest.raises(EnrolmentRejected, match="seaside: one of its keys was revoked"):
        register.enroll(again.write(mail), now=NOW)


def test_a_revoked_site_may_come_with_new_keys(register: Register, mail: Path) -> None:
    register.enroll(Applicant().write(mail), now=NOW)
    register.revoke("lakeside", now=NOW)
    renewed = Applicant()

    register.enroll(renewed.write(mail), now=NOW)

    assert register.active(now=NOW) == {"lakeside": renewed.request}
    assert register.standing(now=NOW) == {"lakeside": Standing.ACTIVE}


def test_a_revocation_is_one_line_and_earlier_lines_stay(register: Register, mail: Path) -> None:
    lines = b""
    for name in ("lakeside", "seaside"):
        site = Applicant(name)
        register.enroll(site.write(mail), now=NOW)
        register.revoke(name, now=NOW)

        now = register.revoked.read_bytes()
        assert now.startswith(lines)
        added = json.loads(now[len(lines) :])
        assert added["revoked"] == int(NOW)
        assert {added["signing_key"], added["node_key"]} == keys_of(site.request)
        lines = now


def test_a_site_is_revoked_even_if_its_file_could_not_be_deleted(
    register: Register, mail: Path
) -> None:
    register.enroll(Applicant().write(mail), now=NOW)
    kept = (register.enrolled / "lakeside.json").read_bytes()
    register.revoke("lakeside", now=NOW)
    (register.enrolled / "lakeside.json").write_bytes(kept)

    assert register.active(now=NOW) == {}
    assert register.standing(now=NOW) == {"lakeside": Standing.REVOKED}


def test_who_is_not_enrolled_cannot_be_revoked(register: Register) -> None:
    with pytest.raises(EnrolmentRejected, match="lakeside: not enrolled"):
        register.revoke("lakeside", now=NOW)


def test_without_the_list_of_revoked_keys_nobody_is_enrolled(
    register: Register, mail: Path
) -> None:
    register.enroll(Applicant().write(mail), now=NOW)
    register.revoked.unlink()

    with pytest.raises(EnrolmentRejected, match=r"revoked.jsonl: no such file") as refused:
        register.active(now=NOW)
    with pytest.raises(EnrolmentRejected):
        register.enroll(Applicant("seaside").write(mail), now=NOW)

    assert "could come back" in refused.value.hint


@pytest.mark.parametrize(
    "line", [b"{}\n", b'{"site":"lakeside"}\n', b"\xff\n", b"not json\n", b"\n"]
)
def test_a_line_that_cannot_be_read_stops_everything(register: Register, line: bytes) -> None:
    register.revoked.write_bytes(line)

    with pytest.raises(EnrolmentRejected, match=r"revoked.jsonl: line 1 cannot be read"):
        register.active(now=NOW)


def test_an_altered_request_is_refused(register: Register, mail: Path) -> None:
    register.enroll(Applicant().write(mail), now=NOW)
    path = register.enrolled / "lakeside.json"
    path.write_bytes(path.read_bytes().replace(b'"expires":1', b'"expires":2'))

    with pytest.raises(EnrolmentRejected, match="its signature is wrong"):
        register.active(now=NOW)


def test_a_renamed_request_is_refused(register: Register, mail: Path) -> None:
    register.enroll(Applicant().write(mail), now=NOW)
    (register.enrolled / "lakeside.json").rename(register.enrolled / "seaside.json")

    with pytest.raises(EnrolmentRejected, match=r"seaside.json: the request of lakeside"):
        register.active(now=NOW)


def test_what_is_no_request_is_refused(register: Register, tmp_path: Path) -> None:
    (tmp_path / "note").write_text("please enroll us")

    with pytest.raises(EnrolmentRejected, match="malformed"):
        register.enroll(tmp_path / "note", now=NOW)
    assert register.requests() == {}


def test_beginning_again_keeps_what_is_there(register: Register, mail: Path) -> None:
    register.enroll(Applicant().write(mail), now=NOW)
    register.revoke("lakeside", now=NOW)

    register.create()

    assert register.standing(now=NOW) == {"lakeside": Standing.REVOKED}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run in which lakeside and seaside have each stored something."""
    made = RunDirectory(tmp_path / "run")
    write_json(made.enrolment_path, {})
    return made


def test_a_run_admits_whoever_is_active_and_nobody_else(run: RunDirectory) -> None:
    lakeside, seaside = Applicant(officer=SigningKey.generate()), Applicant("seaside")

    admit(run, {"lakeside": lakeside.request, "seaside": seaside.request})

    assert lakeside.officer is not None
    assert run.enrolled == {
        "lakeside": Enrolment(lakeside.signing.public, lakeside.officer.public),
        "seaside": Enrolment(seaside.signing.public),
    }

    admit(run, {"seaside": seaside.request})

    assert list(run.enrolled) == ["seaside"]


@pytest.mark.parametrize("returns", ["not at all", "with other keys"])
def test_what_a_revoked_site_had_stored_does_not_count_any_more(
    run: RunDirectory, returns: str
) -> None:
    sites = {name: Applicant(name).request for name in ("lakeside", "seaside")}
    admit(run, sites)
    for name in sites:
        write_atomically(run.sealed(1, name), name.encode())
    others = {"lakeside": Applicant().request} if returns == "with other keys" else {}

    admit(run, {"seaside": sites["seaside"], **others})

    assert [path.name for path in run.sealed_folder(1).iterdir()] == ["seaside.sealed"]
    [aside] = (run.round(1) / "withdrawn").iterdir()
    assert aside.read_bytes() == b"lakeside"


def test_a_death_while_a_site_is_expelled_leaves_nothing_of_it_to_be_opened(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = {name: Applicant(name).request for name in ("lakeside", "seaside")}
    admit(run, sites)
    write_atomically(run.sealed(1, "lakeside"), b"sealed")
    with monkeypatch.context() as dying:
        dying.setattr(enrolment, "_put_aside", _die)
        with pytest.raises(KeyboardInterrupt):
            admit(run, {"seaside": sites["seaside"]})

    admit(run, {"seaside": sites["seaside"]})

    assert not run.sealed(1, "lakeside").exists()


def _die(*_: object) -> None:
    raise KeyboardInterrupt


def test_admitting_the_same_sites_again_changes_nothing(run: RunDirectory) -> None:
    sites = {name: Applicant(name).request for name in ("lakeside", "seaside")}
    admit(run, sites)
    write_atomically(run.sealed(1, "lakeside"), b"sealed")
    before = run.enrolment_path.stat().st_mtime_ns

    admit(run, sites)

    assert run.sealed(1, "lakeside").exists()
    assert run.enrolment_path.stat().st_mtime_ns == before
