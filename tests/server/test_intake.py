from __future__ import annotations

import stat
import subprocess
import sys
from dataclasses import replace

import pytest

from fedcondense.errors import ContributionRejected, RunDirectoryError
from fedcondense.exchange.keys import SigningKey
from fedcondense.files.storage import read_json, sha256
from fedcondense.server.intake import MOST_ATTEMPTS, IntakeLimits, enroll, receive, rejections
from fedcondense.server.run_directory import Enrolment, RunDirectory


def reason_of(run, blob, **how):
    with pytest.raises(ContributionRejected) as rejected:
        receive(run, blob, 1, **how)
    return rejected.value.reason


def test_a_good_contribution_is_stored_byte_for_byte_and_unopened(run, wire):
    blob = wire.sealed()

    receipt = receive(run, blob, 1)

    stored = run.sealed(1, "site-1")
    assert (receipt.site, receipt.sha256, receipt.duplicate) == ("site-1", sha256(blob), False)
    assert stored.read_bytes() == blob
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    assert [path.name for path in run.round(1).iterdir()] == ["sealed"]


def test_the_same_bytes_again_are_a_success_counted_once(run, wire):
    blob = wire.sealed()
    receive(run, blob, 1)

    again = receive(RunDirectory(run.path), blob, 1)

    assert again.duplicate
    assert len(list(run.sealed_folder(1).iterdir())) == 1
    assert rejections(run, 1) == {}


def test_another_contribution_of_the_same_site_is_refused_also_after_a_restart(run, wire):
    first = wire.sealed()
    receive(run, first, 1)

    reason = reason_of(RunDirectory(run.path), wire.sealed(seed=1))

    assert reason == "replayed"
    assert run.sealed(1, "site-1").read_bytes() == first
    assert rejections(run, 1) == {"site-1": {"replayed": 1}}


def test_the_contribution_of_one_round_is_refused_in_the_next(run, wire):
    blob = wire.sealed()
    receive(run, blob, 1)

    with pytest.raises(ContributionRejected, match=r"^contribution rejected: round$"):
        receive(run, blob, 2)


def test_a_deployed_run_refuses_a_simulation(run, wire):
    assert reason_of(run, replace(wire, purpose="simulation").sealed()) == "purpose"
    assert not run.sealed(1, "site-1").exists()


def test_a_refused_contribution_leaves_a_count_and_nothing_else(run, wire):
    blob = wire.sealed()

    reason = reason_of(run, blob[:-1] + bytes([blob[-1] ^ 1]))

    assert reason == "signature"
    assert rejections(run, 1) == {"site-1": {"signature": 1}}
    assert [path.name for path in run.round(1).iterdir()] == ["rejections.json"]


def test_a_site_has_five_attempts_until_its_first_stored_contribution(run, wire):
    for _ in range(MOST_ATTEMPTS):
        assert reason_of(run, wire.sealed(round=2)) == "round"

    assert reason_of(run, wire.sealed()) == "attempts"
    assert receive(run, wire.sealed("site-2", seed=1), 1).site == "site-2"


def test_attempts_are_those_of_one_round(run, wire):
    for _ in range(MOST_ATTEMPTS):
        reason_of(run, wire.sealed(round=2))

    assert receive(run, wire.sealed(round=2), 2).site == "site-1"


def test_garbage_costs_no_site_an_attempt(run, wire):
    for _ in range(2 * MOST_ATTEMPTS):
        assert reason_of(run, b"garbage" * 1000) == "magic"

    assert rejections(run, 1) == {"?": {"magic": 10}}
    assert receive(run, wire.sealed(), 1).site == "site-1"


def test_a_known_sender_answers_for_what_it_sent(run, wire):
    assert reason_of(run, b"garbage" * 1000, sender="site-2") == "magic"
    assert reason_of(run, wire.sealed("site-1"), sender="site-2") == "site"
    assert reason_of(run, wire.sealed("site-1"), sender="site-9") == "site"

    assert rejections(run, 1) == {"site-2": {"magic": 1, "site": 1}, "?": {"site": 1}}


@pytest.mark.parametrize("sender", ["site-9", "../../site-1"])
def test_an_unknown_sender_is_refused_before_its_bytes_are_looked_at(run, sender):
    assert reason_of(run, b"garbage" * 1000, sender=sender) == "site"


def test_an_unknown_site_is_counted_under_nobody(run, wire):
    stranger = replace(wire, keys={"site-7": SigningKey.generate()})

    assert reason_of(run, stranger.sealed("site-7")) == "site"
    assert rejections(run, 1) == {"?": {"site": 1}}


def test_a_full_run_directory_takes_no_more(run, wire):
    first = wire.sealed()
    small = IntakeLimits(stored_bytes=len(first) + 10)
    receive(run, first, 1, limits=small)

    assert reason_of(run, wire.sealed("site-2", seed=1), limits=small) == "full"
    assert receive(run, first, 1, limits=small).duplicate


def test_any_number_of_bad_contributions_leave_the_intake_open_and_its_counters_small(run, wire):
    blob = wire.sealed("site-1")
    for at in range(150):
        reason_of(run, blob[: 400 * at])

    assert receive(run, wire.sealed("site-2", seed=1), 1).site == "site-2"
    assert run.rejections(1).stat().st_size < 200


@pytest.mark.parametrize(
    ("site", "public"),
    [("Site", bytes(32)), ("../x", bytes(32)), ("", bytes(32)), ("site-3", bytes(31))],
)
def test_what_is_no_site_is_not_enrolled(run, site, public):
    with pytest.raises(RunDirectoryError, match="not an enrolment of a site"):
        enroll(run, site, public)


def test_an_enrolled_key_is_not_exchanged(run, wire):
    with pytest.raises(RunDirectoryError, match=r"^site-1: enrolled with another key$"):
        enroll(run, "site-1", SigningKey.generate().public)


def test_one_key_is_not_enrolled_for_two_sites(run, wire):
    with pytest.raises(RunDirectoryError, match=r"^site-3: the key is another site's$"):
        enroll(run, "site-3", wire.keys["site-1"].public)


def test_enrolling_twice_is_no_error(run, wire):
    enroll(run, "site-1", wire.keys["site-1"].public)

    assert run.enrolled["site-1"].public == wire.keys["site-1"].public


@pytest.mark.parametrize("module", ["intake", "run_directory", "opening", "aggregate"])
def test_what_handles_contributions_loads_no_torch(module):
    heavy = "sorted({'torch', 'flwr', 'opacus'} & set(sys.modules))"
    code = f"import sys, fedcondense.server.{module}; print({heavy})"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_an_officer_is_enrolled_with_the_site(run, wire):
    officer, key = SigningKey.generate().public, SigningKey.generate().public

    enroll(run, "site-3", key, officer=officer)
    enroll(run, "site-3", key, officer=officer)

    assert run.enrolled["site-3"] == Enrolment(key, officer)
    assert run.expectation(1).officers == {"site-3": officer}
    assert run.enrolled["site-1"].officer is None


def test_the_allow_list_is_written_in_one_simple_form(run, wire):
    officer = SigningKey.generate().public
    enroll(run, "site-3", bytes(range(32)), officer=officer)

    assert read_json(run.enrolment_path)["site-3"] == {
        "signing_key": bytes(range(32)).hex(),
        "officer": officer.hex(),
    }
    assert read_json(run.enrolment_path)["site-1"]["officer"] is None


@pytest.mark.parametrize("other", [None, bytes(range(32))])
def test_an_enrolled_officer_is_neither_exchanged_nor_dropped(run, other):
    key = SigningKey.generate().public
    enroll(run, "site-3", key, officer=SigningKey.generate().public)

    with pytest.raises(RunDirectoryError, match=r"^site-3: enrolled with another officer$"):
        enroll(run, "site-3", key, officer=other)


def test_one_officer_may_serve_several_sites(run):
    officer = SigningKey.generate().public
    for site in ("site-3", "site-4"):
        enroll(run, site, SigningKey.generate().public, officer=officer)

    assert run.expectation(1).officers == dict.fromkeys(("site-3", "site-4"), officer)


def test_who_seals_does_not_approve(run, wire):
    officer, own = SigningKey.generate().public, SigningKey.generate().public
    enroll(run, "site-3", SigningKey.generate().public, officer=officer)

    for public, approver in ((own, own), (own, wire.keys["site-1"].public), (officer, None)):
        with pytest.raises(RunDirectoryError, match="a key that seals is an officer's too"):
            enroll(run, "site-4", public, officer=approver)


def test_an_officers_key_of_another_length_is_no_key(run):
    with pytest.raises(RunDirectoryError, match="not an enrolment of a site"):
        enroll(run, "site-3", bytes(range(32)), officer=bytes(31))


def test_a_server_may_allow_fewer_attempts(run, wire):
    once = IntakeLimits(attempts=1)

    assert reason_of(run, b"bad", sender="site-1", limits=once) == "length"
    assert reason_of(run, wire.sealed("site-1"), sender="site-1", limits=once) == "attempts"
