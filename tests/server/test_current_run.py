"""The run that a server is in: begun once, found again, and its key deleted at the end."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from server_kit import Office, make_office
from wire_kit import small_study

from fedcondense.errors import KeyFileError, RunDirectoryError
from fedcondense.exchange.keys import SigningKey, signing_fingerprint
from fedcondense.exchange.run_description import read_description
from fedcondense.files.storage import write_json
from fedcondense.server.current_run import (
    CurrentRun,
    begin_run,
    demand_key,
    find_run,
    is_locked,
    locked,
    renew_deadline,
    study_of,
)

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return make_office(tmp_path)


def begin(office: Office, now: float = NOW) -> CurrentRun:
    return begin_run(office.config, study_of(office.config), now=now)


def find(office: Office) -> CurrentRun | None:
    return find_run(office.config, study_of(office.config))


def test_a_run_is_named_by_study_and_start_and_signed_by_the_run_signing_key(
    office: Office,
) -> None:
    current = begin(office)

    description, signer = read_description(current.run.description_path.read_bytes())
    pinned = SigningKey.load(office.config.run_signing_key).fingerprint
    assert current.run.path == office.config.runs / "small-20270115T080000Z"
    assert signing_fingerprint(signer) == pinned
    assert description.deadline == NOW + 72 * 3600
    assert (description.quorum, description.purpose) == (1, "release")
    assert current.run.enrolled == {}


def test_its_opening_key_lies_beside_the_run_signing_key_and_not_in_the_run(
    office: Office,
) -> None:
    current = begin(office)

    description = current.run.description()
    assert current.key_path == office.config.keys / f"opening-{description.run}.key"
    assert stat.S_IMODE(current.key_path.stat().st_mode) == 0o600
    assert current.opening_key().recipient.raw.hex() == description.recipient
    secret = current.key_path.read_bytes().split()[1]
    files = [path for path in current.run.path.rglob("*") if path.is_file()]
    assert files
    assert not any(secret in path.read_bytes() for path in files)


def test_a_killed_server_finds_the_run_with_the_same_key(office: Office) -> None:
    begun = begin(office)

    found = find(office)

    assert found is not None
    assert (found.run.path, found.key_path) == (begun.run.path, begun.key_path)
    assert (found.open_round, found.is_finished) == (1, False)


def test_before_the_first_run_there_is_none(office: Office) -> None:
    assert find(office) is None


def test_a_run_that_never_got_its_description_is_passed_over(office: Office) -> None:
    (office.config.runs / "small-20270115T080001Z").mkdir(parents=True)

    assert find(office) is None


def test_the_newest_run_is_the_current_one(office: Office) -> None:
    first = begin(office)
    write_json(first.run.report_json_path, {})
    second = begin(office, NOW + 86_400)

    found = find(office)

    assert found is not None
    assert found.run.path == second.run.path


def test_a_study_that_was_edited_while_its_run_goes_on_is_refused(office: Office) -> None:
    begun = begin(office)
    office.write_study(small_study(quorum=2))

    with pytest.raises(RunDirectoryError, match="not finished, and of a study with another digest"):
        find(office)

    write_json(begun.run.report_json_path, {})
    assert find(office) is None


def test_another_study_has_its_own_runs(office: Office) -> None:
    begin(office)
    office.write_study(small_study(name="other"))

    assert find(office) is None


def test_a_concluded_round_is_not_open_any_more(office: Office) -> None:
    current = begin(office)

    write_json(current.run.done(1), {})

    assert current.open_round is None
    demand_key(current)


def test_a_run_whose_key_is_gone_is_not_gone_on_with(office: Office) -> None:
    current = begin(office)
    current.discard_key()

    with pytest.raises(KeyFileError, match="the opening key of this run is gone"):
        demand_key(current)
    assert not current.key_path.exists()


def test_a_new_deadline_changes_nothing_else_of_a_run(office: Office) -> None:
    current = begin(office)
    before = current.run.description()

    renew_deadline(office.config, current, now=NOW + 86_400)

    after = current.run.description()
    assert after.deadline == before.deadline + 86_400
    assert (after.run, after.recipient) == (before.run, before.recipient)


def test_a_second_server_is_kept_out(office: Office) -> None:
    assert not is_locked(office.config)
    with locked(office.config):
        assert is_locked(office.config)
        with (
            pytest.raises(RunDirectoryError, match="another server works here"),
            locked(office.config),
        ):
            pytest.fail("two servers")

    assert not is_locked(office.config)


def test_runs_that_cannot_be_written_are_named(office: Office, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")

    with pytest.raises(RunDirectoryError, match="file exists"), locked(office.config):
        pytest.fail("locked")
