from __future__ import annotations

import shutil
import stat
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from wire_kit import learning_study, payload_of, small_study

from fedcondense.config.study import LARGEST_CONTRIBUTION
from fedcondense.errors import KeyFileError, QuorumMissed
from fedcondense.exchange.keys import OpeningKey, SigningKey, fingerprint_digits
from fedcondense.files.storage import read_arrays, read_json, sha256
from fedcondense.server import opening
from fedcondense.server.intake import enroll, receive
from fedcondense.server.opening import discard_opened, open_round, set_digest


def verdicts_of(run, round=1):
    sites = read_json(run.verdicts(round))["sites"]
    return {site: verdict.get("reason", verdict["verdict"]) for site, verdict in sites.items()}


@pytest.fixture
def full(run, wire):
    """A round with one good contribution of each site."""
    for seed, site in enumerate(wire.keys):
        receive(run, wire.sealed(site, seed=seed), 1)
    return run


def test_good_contributions_are_opened_in_the_order_of_their_sites(full, wire):
    opened = open_round(full, 1, wire.opening)

    assert [of.site for of in opened] == ["site-1", "site-2"]
    assert [of.payload for of in opened] == [payload_of(wire.study, seed=n) for n in (0, 1)]
    assert verdicts_of(full) == {"site-1": "accepted", "site-2": "accepted"}


def test_a_verdict_accounts_for_what_was_accepted(full, wire):
    open_round(full, 1, wire.opening)

    verdict = read_json(full.verdicts(1))["sites"]["site-1"]
    payload = payload_of(wire.study)
    assert verdict["images"] == 3
    assert verdict["payload_sha256"] == payload.sha256
    assert verdict["sealed_sha256"] == sha256(full.sealed(1, "site-1").read_bytes())
    assert verdict["record"]["statement"].startswith("Contains 3 synthetic images")


def test_below_the_quorum_nothing_is_opened(run, wire, monkeypatch):
    receive(run, wire.sealed(), 1)
    monkeypatch.setattr(opening, "open_sealed", lambda *_: pytest.fail("opened"))

    with pytest.raises(QuorumMissed, match=r"^1 stored contributions, the study's quorum is 2$"):
        open_round(run, 1, wire.opening)

    assert not run.opened_folder(1).exists()


def test_what_the_server_app_stored_unverified_does_not_count_for_the_quorum(
    run, wire, monkeypatch
):
    receive(run, wire.sealed(), 1)
    run.sealed(1, "site-2").write_bytes(b"garbage" * 1000)
    monkeypatch.setattr(opening, "open_sealed", lambda *_: pytest.fail("opened"))

    with pytest.raises(QuorumMissed, match=r"^1 verified contributions"):
        open_round(run, 1, wire.opening)

    assert verdicts_of(run)["site-2"] == "magic"


def test_fewer_valid_contributions_than_the_quorum_make_no_set(run, wire):
    receive(run, wire.sealed(), 1)
    bad = wire.blob(wire.manifest("site-2"), wire.body(b"{}"), "site-2")
    receive(run, bad, 1)

    with pytest.raises(QuorumMissed, match=r"^1 valid contributions") as error:
        open_round(run, 1, wire.opening)

    assert error.value.code == "FC501"
    assert verdicts_of(run) == {"site-1": "accepted", "site-2": "contents"}
    assert not run.opened_folder(1).exists()


def test_the_key_of_another_run_opens_nothing(full):
    with pytest.raises(KeyFileError, match="the opening key is of another run"):
        open_round(full, 1, OpeningKey.generate())


def test_a_contribution_stored_under_another_sites_name_is_refused(full, wire):
    third = SigningKey.generate()
    enroll(full, "site-3", third.public)
    shutil.copy(full.sealed(1, "site-1"), full.sealed(1, "site-3"))

    open_round(full, 1, wire.opening)

    assert verdicts_of(full)["site-3"] == "site"


def test_a_foreign_file_a_link_and_a_giant_are_refused(full, wire, tmp_path):
    for name in ("site-3", "site-4"):
        enroll(full, name, SigningKey.generate().public)
    full.sealed_folder(1).joinpath("Not a site.sealed").write_bytes(b"x")
    full.sealed(1, "site-3").symlink_to(full.sealed(1, "site-1"))
    with full.sealed(1, "site-4").open("wb") as giant:
        giant.truncate(LARGEST_CONTRIBUTION + 1)

    tracemalloc.start()
    opened = open_round(full, 1, wire.opening)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < LARGEST_CONTRIBUTION / 4
    assert [of.site for of in opened] == ["site-1", "site-2"]
    assert verdicts_of(full) == {
        "site-1": "accepted",
        "site-2": "accepted",
        "site-3": "length",
        "site-4": "length",
        "?": "length",
    }


def test_a_site_that_sent_nothing_is_named_missing(full, wire):
    enroll(full, "site-3", SigningKey.generate().public)

    open_round(full, 1, wire.opening)

    assert verdicts_of(full)["site-3"] == "missing"


def with_a_third_site(run, wire):
    """The same run, in which site-3 can seal too."""
    key = SigningKey.generate()
    enroll(run, "site-3", key.public)
    return replace(wire, keys=wire.keys | {"site-3": key})


def test_an_exact_copy_of_another_sites_set_is_refused(full, wire):
    third = with_a_third_site(full, wire)
    receive(full, third.sealed("site-3", seed=0), 1)

    opened = open_round(full, 1, wire.opening)

    assert [of.site for of in opened] == ["site-1", "site-2"]
    assert verdicts_of(full)["site-3"] == "duplicate"


def test_a_copy_from_an_earlier_round_is_refused(full, wire):
    open_round(full, 1, wire.opening)
    third = with_a_third_site(full, wire)
    for site, seed in (("site-1", 7), ("site-2", 8), ("site-3", 1)):
        receive(full, third.sealed(site, seed=seed, round=2), 2)

    open_round(full, 2, wire.opening)

    assert verdicts_of(full, 2)["site-3"] == "duplicate"


def test_a_site_may_send_its_own_set_of_an_earlier_round_again(full, wire):
    open_round(full, 1, wire.opening)
    for seed, site in enumerate(wire.keys):
        receive(full, wire.sealed(site, seed=seed, round=2), 2)

    assert len(open_round(full, 2, wire.opening)) == 2


def test_a_set_in_another_order_with_other_labels_is_the_same_set():
    payload = payload_of(small_study(), (0, 0, 1))
    turned = np.ascontiguousarray(payload.pixel_array()[::-1])
    other = replace(payload, pixels=turned.tobytes(), labels=b"\1\1\0")

    assert set_digest(other) == set_digest(payload)
    assert set_digest(payload_of(small_study(), seed=1)) != set_digest(payload)


def test_opened_arrays_lie_in_private_folders_until_discarded(full, wire):
    open_round(full, 1, wire.opening)

    folder = full.opened(1, "site-1")
    arrays = read_arrays(folder / "set.safetensors")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder)] == [0o700] * 2
    assert arrays["images"].tobytes() == payload_of(wire.study).pixels
    assert read_json(folder / "record.json")["verdict"] == "passed"

    discard_opened(full, 1)

    assert not full.opened_folder(1).exists()


def test_a_round_can_be_opened_again(full, wire):
    first = open_round(full, 1, wire.opening)

    assert open_round(full, 1, wire.opening) == first


def test_nothing_stored_is_a_missed_quorum(run, wire):
    with pytest.raises(QuorumMissed, match=r"^0 stored contributions"):
        open_round(run, 1, wire.opening)


def test_a_blob_changed_after_the_intake_is_refused(full, wire):
    path = full.sealed(1, "site-2")
    blob = path.read_bytes()
    path.write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))  # one signature in 17 ends in a zero

    with pytest.raises(QuorumMissed):
        open_round(full, 1, wire.opening)

    assert verdicts_of(full)["site-2"] == "signature"


def test_soft_labels_are_opened_with_their_images(learning_run, learning):
    for seed, site in enumerate(learning.keys):
        receive(learning_run, learning.sealed(site, seed=seed), 1)

    opened = open_round(learning_run, 1, learning.opening)

    folder = learning_run.opened(1, "site-2")
    kept = read_arrays(folder / "set.safetensors")["soft"]
    assert kept.tobytes() == opened[1].payload.soft == payload_of(learning.study, seed=1).soft
    assert read_json(folder / "record.json")["student_lr"] == opened[1].payload.student_rate


def test_a_copy_with_soft_labels_of_its_own_is_still_a_copy():
    payload = payload_of(learning_study())

    assert set_digest(replace(payload, soft=bytes(12))) == set_digest(payload)


def with_an_officer(run, wire, *, approves):
    """A third site whose data officer is enrolled, and approves what it sends, or does not."""
    key, officer = SigningKey.generate(), SigningKey.generate()
    enroll(run, "site-3", key.public, officer=officer.public)
    officers = {"site-3": officer} if approves else {}
    third = replace(wire, keys=wire.keys | {"site-3": key}, officers=officers)
    receive(run, third.sealed("site-3", seed=9), 1)
    return fingerprint_digits(officer.fingerprint)


def test_what_the_enrolled_officer_approved_is_opened_and_the_verdict_names_the_key(full, wire):
    officer = with_an_officer(full, wire, approves=True)

    opened = open_round(full, 1, wire.opening)

    assert [of.site for of in opened] == ["site-1", "site-2", "site-3"]
    sites = read_json(full.verdicts(1))["sites"]
    assert sites["site-3"]["approved_by"] == [officer]
    assert sites["site-1"]["approved_by"] == []


def test_without_the_enrolled_officers_approval_nothing_is_opened_to_the_union(full, wire):
    with_an_officer(full, wire, approves=False)

    open_round(full, 1, wire.opening)

    assert verdicts_of(full)["site-3"] == "approvals"
    assert not full.opened(1, "site-3").exists()


def test_a_record_decided_for_another_round_is_refused(full, wire):
    third = with_a_third_site(full, wire)
    body = third.body(third.contents(release_record=third.released(round=2).record))
    receive(full, third.blob(third.manifest("site-3"), body, "site-3"), 1)

    open_round(full, 1, wire.opening)

    assert verdicts_of(full)["site-3"] == "record"
