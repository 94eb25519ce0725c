"""A deployed round against a Grid that plays a script."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from pathlib import Path

import pytest
from federation_kit import Repetition, make_repetition
from flwr.app import Message
from grid_kit import DeployedGrid, losing, never, replying

from fedcondense.exchange.keys import SigningKey, fingerprint_digits
from fedcondense.exchange.run_description import sign_description
from fedcondense.files.storage import sha256, write_json
from fedcondense.flower import gathering
from fedcondense.flower.gathering import Gathering
from fedcondense.flower.messages import CONTRIBUTE, HELLO, Outcome, Reply, to_reply
from fedcondense.flower.round_files import (
    Intake,
    Plan,
    Progress,
    Stage,
    read_marks,
    read_progress,
    write_nodes,
)
from fedcondense.server import intake as intake_of_server
from fedcondense.server.intake import receive
from fedcondense.server.run_directory import RunDirectory

ALL = ("site-1", "site-2", "site-3")
UPLOAD_CUT, GONE, CRASHED = 3, 5, 8


class Clock:
    """Stands in for the module `time`: it goes on while somebody sleeps, and then only."""

    def __init__(self) -> None:
        self.now = time.time()

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(gathering, "time", clock)
    return clock


@pytest.fixture
def grid(repetition: Repetition) -> DeployedGrid:
    return DeployedGrid(repetition)


def gather(grid: DeployedGrid, *, joining: float = 0.0) -> Intake:
    """A round whose joining time ends in so many seconds."""
    plan = Plan(1, joining=gathering.time.time() + joining)
    return Gathering(grid, grid.repetition.run, plan).collect()


def progress(grid: DeployedGrid) -> Progress:
    found = read_progress(grid.repetition.run.round(1))
    assert found is not None
    return found


def describe(grid: DeployedGrid, **changes: int) -> None:
    """Sign the run description again, with changes."""
    description = replace(grid.repetition.description, **changes)
    signed = sign_description(description, grid.repetition.operator)
    grid.repetition.run.description_path.write_bytes(signed)


@pytest.fixture
def two(tmp_path: Path) -> DeployedGrid:
    """Two sites, and two minutes until the deadline."""
    return DeployedGrid(make_repetition(tmp_path / "two", sites=2, seconds=120))


def test_each_contribution_is_stored_sealed_under_its_sites_name(grid: DeployedGrid) -> None:
    intake = gather(grid)

    run = grid.repetition.run
    digests = {site: sha256(run.sealed(1, site).read_bytes()) for site in ALL}
    assert intake == Intake(1, digests, {}, {}, {}, ALL)
    assert progress(grid).stages == dict.fromkeys(ALL, Stage.STORED)


def test_nobody_is_asked_before_a_quorum_is_ready(grid: DeployedGrid) -> None:
    describe(grid, quorum=2)
    grid.online = {"site-1"}
    before: list[list[str]] = []

    def arrive(look: int) -> None:
        if look == 5:
            before.append(grid.asked())
            grid.online.add("site-2")
        if len(grid.asked()) == 2:
            grid.online.add("site-3")

    grid.on_look = arrive
    intake = gather(grid, joining=300)

    assert before == [[]]
    assert grid.asked() == ["site-1", "site-2", "site-3"]
    assert sorted(intake.stored) == list(ALL)


def test_a_contribution_refused_at_its_opening_is_none_of_a_quorum_and_not_asked_for_again(
    grid: DeployedGrid, clock: Clock
) -> None:
    describe(grid, quorum=2)
    run, began = grid.repetition.run, clock.now
    receive(run, grid.repetition.sealed("site-1"), 1, sender="site-1")
    verdict = {"verdict": "rejected", "reason": "duplicate"}
    write_json(run.verdicts(1), {"round": 1, "sites": {"site-1": verdict}})
    grid.online = {"site-1", "site-2"}
    before: list[list[str]] = []

    def arrive(look: int) -> None:
        if clock.now > began + 20 and not before:
            before.append(grid.asked())
            grid.online.add("site-3")

    grid.on_look = arrive
    intake = gather(grid, joining=300)

    assert before == [[]]
    assert grid.asked() == ["site-2", "site-3"]
    assert sorted(intake.stored) == list(ALL)


def test_after_the_joining_time_whoever_is_there_is_asked(two: DeployedGrid, clock: Clock) -> None:
    grid = two
    describe(grid, quorum=2)
    grid.online = {"site-1"}
    first: list[float] = []
    grid.on_look = lambda look: first.extend([clock.now] if grid.asked() and not first else [])
    began = clock.now

    intake = gather(grid, joining=30)

    assert first[0] - began == pytest.approx(31, abs=1)

    assert list(intake.stored) == ["site-1"]
    assert intake.missing == {"site-2": "FC502"}


def test_a_site_that_is_not_ready_is_greeted_again_until_it_is(grid: DeployedGrid) -> None:
    wrong = replying(Outcome.FAILED, "FC404", key_of(grid, "site-2"))
    right = replying(Outcome.READY, "", key_of(grid, "site-2"))
    grid.says("site-2", HELLO, wrong, wrong, right)

    intake = gather(grid)

    assert grid.asked(HELLO).count("site-2") == 3
    assert sorted(intake.stored) == list(ALL)


def test_a_site_that_is_never_ready_is_named_with_its_code(two: DeployedGrid) -> None:
    grid = two
    grid.says("site-2", HELLO, replying(Outcome.FAILED, "FC404", key_of(grid, "site-2")))

    intake = gather(grid)

    assert grid.asked() == ["site-1"]
    assert (list(intake.stored), intake.failed) == (["site-1"], {"site-2": "FC404"})


def test_a_node_speaks_for_no_other_site(two: DeployedGrid) -> None:
    grid = two
    grid.says("site-2", HELLO, replying(Outcome.READY, "", key_of(grid, "site-1")))

    intake = gather(grid)

    assert grid.asked() == ["site-1"]
    assert intake.failed == {"site-2": "FC408"}
    assert list(intake.stored) == ["site-1"]


def test_a_reply_that_comes_from_another_node_is_not_taken(grid: DeployedGrid) -> None:
    def forged(message: Message) -> Message:
        sealed = grid.repetition.sealed("site-2")
        reply = to_reply(Reply(Outcome.SEALED, "", key_of(grid, "site-2"), sealed), message)
        reply.metadata.__dict__["_src_node_id"] = grid.nodes["site-3"]
        return reply

    grid.says("site-2", CONTRIBUTE, forged)

    intake = gather(grid)

    assert intake.failed == {"site-2": "FC408"}
    assert not grid.repetition.run.sealed(1, "site-2").exists()


def test_refusals_and_failures_keep_the_sites_own_code_and_are_final(grid: DeployedGrid) -> None:
    key = key_of(grid, "site-1")
    grid.says("site-1", CONTRIBUTE, replying(Outcome.REFUSED, "FC401", key))
    grid.says("site-2", CONTRIBUTE, replying(Outcome.FAILED, "FC203", key_of(grid, "site-2")))

    intake = gather(grid)

    assert (intake.refused, intake.failed) == ({"site-1": "FC401"}, {"site-2": "FC203"})
    assert sorted(grid.asked()) == list(ALL)
    assert progress(grid).codes == {"site-1": "FC401", "site-2": "FC203"}


def test_a_site_that_refuses_when_greeted_is_neither_counted_nor_waited_for(
    grid: DeployedGrid,
) -> None:
    grid.says("site-1", HELLO, replying(Outcome.REFUSED, "FC406", key_of(grid, "site-1")))

    intake = gather(grid)

    assert intake.refused == {"site-1": "FC406"}
    assert "site-1" not in grid.asked()


def test_a_data_officer_is_waited_for_and_asked_ever_more_rarely(
    grid: DeployedGrid, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "APPROVAL_AGAIN", 10.0)
    monkeypatch.setattr(gathering, "LONGEST_APPROVAL", 40.0)
    asked: list[float] = []

    def waiting(message: Message) -> Message | None:
        asked.append(clock.now)
        reply = replying(Outcome.FAILED, "FC405", key_of(grid, "site-2"))
        return (reply if len(asked) < 6 else grid._well("site-2"))(message)

    grid.says("site-2", CONTRIBUTE, waiting)

    intake = gather(grid)

    pauses = [round(after - before) for before, after in itertools.pairwise(asked)]
    assert pauses == [pytest.approx(pause, abs=2) for pause in (11, 21, 41, 41, 41)]
    assert sorted(intake.stored) == list(ALL)


def test_a_site_that_went_away_is_asked_when_it_is_back(grid: DeployedGrid) -> None:
    grid.says("site-2", CONTRIBUTE, losing(GONE), losing(GONE), losing(GONE), grid._well("site-2"))

    intake = gather(grid)

    assert grid.asked().count("site-2") == 4
    assert sorted(intake.stored) == list(ALL)


def test_a_site_whose_uploads_are_cut_is_asked_again_and_never_given_up(
    grid: DeployedGrid,
) -> None:
    cut = losing(UPLOAD_CUT)
    grid.says("site-2", CONTRIBUTE, cut, cut, cut, grid._well("site-2"))

    intake = gather(grid)

    assert grid.asked().count("site-2") == 4
    assert sorted(intake.stored) == list(ALL)


def test_a_site_whose_process_dies_is_asked_once_more_and_then_missing(grid: DeployedGrid) -> None:
    grid.says("site-2", CONTRIBUTE, losing(CRASHED))

    intake = gather(grid)

    assert grid.asked().count("site-2") == 2
    assert (intake.missing, intake.lost) == ({"site-2": "FC502"}, ("site-2",))
    assert sorted(intake.stored) == ["site-1", "site-3"]
    assert progress(grid).stages["site-2"] is Stage.LOST


def test_a_late_site_is_missing_at_the_deadline(two: DeployedGrid, clock: Clock) -> None:
    grid = two
    grid.says("site-2", CONTRIBUTE, never)

    intake = gather(grid)

    assert list(intake.stored) == ["site-1"]
    assert (intake.missing, intake.lost) == ({"site-2": "FC502"}, ("site-2",))
    assert 0 <= clock.now - grid.repetition.description.deadline < 2


def test_a_site_that_never_came_is_missing_and_was_not_asked(two: DeployedGrid) -> None:
    grid = two
    grid.online = {"site-1"}

    intake = gather(grid)

    assert (intake.missing, intake.unasked) == ({"site-2": "FC502"}, ("site-2",))
    assert progress(grid).online == ("site-1",)


def test_a_contribution_that_stands_is_not_asked_for_again(grid: DeployedGrid) -> None:
    first = gather(grid)
    grid.pushed.clear()

    second = gather(grid)

    assert grid.pushed == []
    assert second.stored == first.stored
    assert second.asked == ()


def test_what_is_stored_is_not_read_again_while_others_are_waited_for(
    two: DeployedGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr(
        intake_of_server, "sha256", lambda data: read.append("stored") or sha256(data)
    )
    two.says("site-2", CONTRIBUTE, never)

    gather(two)

    assert two.looks > 100
    assert len(read) == 2  # when it came in, and for the intake


def test_replies_are_taken_one_at_a_time_for_each_may_be_large(grid: DeployedGrid) -> None:
    gather(grid)

    assert grid.pulled
    assert max(len(numbers) for numbers in grid.pulled) == 1


def test_a_site_enrolled_in_the_middle_of_a_round_is_asked_too(grid: DeployedGrid) -> None:
    nodes = dict(grid.nodes)
    del nodes["site-3"]
    write_nodes(grid.repetition.run, nodes)

    def enrol(look: int) -> None:
        if look == 4:
            write_nodes(grid.repetition.run, grid.nodes)

    grid.on_look = enrol

    assert sorted(gather(grid).stored) == list(ALL)


def test_a_site_revoked_in_the_middle_of_a_round_is_nobody(grid: DeployedGrid) -> None:
    grid.says("site-3", CONTRIBUTE, never)
    run = grid.repetition.run

    def revoke(look: int) -> None:
        if look == 6:
            kept = {s: k for s, k in _enrolment(run).items() if s != "site-3"}
            write_json(run.enrolment_path, kept)

    grid.on_look = revoke
    intake = gather(grid)

    assert sorted(intake.stored) == ["site-1", "site-2"]
    assert "site-3" not in {**intake.refused, **intake.failed, **intake.missing}


def test_a_site_that_comes_back_with_other_keys_is_asked_anew(grid: DeployedGrid) -> None:
    run = grid.repetition.run

    def come_back(look: int) -> None:
        if look == 5:
            run.sealed(1, "site-1").unlink()

    grid.says("site-3", CONTRIBUTE, losing(GONE), grid._well("site-3"))
    grid.on_look = come_back

    intake = gather(grid)

    assert grid.asked().count("site-1") == 2
    assert sorted(intake.stored) == list(ALL)


@pytest.mark.parametrize("blob", [b"PK\x03\x04", b"FEDCOND1"])
def test_bytes_that_are_no_contribution_fail_the_site_alone(
    grid: DeployedGrid, blob: bytes
) -> None:
    key = key_of(grid, "site-2")
    grid.says("site-2", CONTRIBUTE, lambda m: to_reply(Reply(Outcome.SEALED, "", key, blob), m))

    intake = gather(grid)

    assert intake.failed == {"site-2": "FC402"}
    assert sorted(intake.stored) == ["site-1", "site-3"]


def test_a_site_cannot_send_anothers_contribution(grid: DeployedGrid) -> None:
    sealed, key = grid.repetition.sealed("site-1"), key_of(grid, "site-2")
    grid.says("site-2", CONTRIBUTE, lambda m: to_reply(Reply(Outcome.SEALED, "", key, sealed), m))

    assert gather(grid).failed == {"site-2": "FC402"}


def test_requests_are_not_delivered_long_after_the_deadline(
    grid: DeployedGrid, clock: Clock
) -> None:
    seen: list[float] = []

    def answer(message: Message) -> Message | None:
        seen.append(message.metadata.ttl)
        return grid._well("site-1")(message)

    grid.says("site-1", CONTRIBUTE, answer)
    left = grid.repetition.description.deadline - clock.now

    gather(grid)

    assert seen == [pytest.approx(left + gathering.GRACE, abs=5)]


def test_the_times_of_a_run_are_marked_in_order(grid: DeployedGrid) -> None:
    gather(grid)

    times = read_marks(grid.repetition.run.round(1) / "times.json")
    assert sorted(times, key=times.__getitem__)[:2] == ["began", "first_hello"]
    assert set(times) == {"began", "first_hello", "first_push", "first_stored", "last_reply"}


def test_another_key_than_the_enrolled_one_is_named(two: DeployedGrid) -> None:
    grid = two
    stranger = fingerprint_digits(SigningKey.generate().fingerprint)
    grid.says("site-2", HELLO, replying(Outcome.READY, "", stranger))

    assert gather(grid).failed == {"site-2": "FC408"}


def key_of(grid: DeployedGrid, site: str) -> str:
    return fingerprint_digits(grid.repetition.keys[site].fingerprint)


def _enrolment(run: RunDirectory) -> dict[str, dict[str, str | None]]:
    return {
        site: {
            "signing_key": keys.public.hex(),
            "officer": keys.officer.hex() if keys.officer else None,
        }
        for site, keys in run.enrolled.items()
    }
