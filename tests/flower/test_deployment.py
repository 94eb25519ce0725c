"""The parent of a deployed run, with a stand-in for Flower's processes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from enrolment_kit import Applicant
from server_kit import Office, make_office
from wire_kit import decided, payload_of, small_study

from fedcondense.errors import FederationError, KeyFileError, QuorumMissed, SettingsError
from fedcondense.exchange.run_description import Request
from fedcondense.exchange.sealing import seal
from fedcondense.files.storage import sha256, write_json
from fedcondense.flower import deployed_round, deployment, restarts
from fedcondense.flower.round_files import (
    Intake,
    Told,
    read_intake,
    read_plan,
    read_told,
    write_intake,
    write_told,
)
from fedcondense.server.current_run import CurrentRun, find_run, study_of
from fedcondense.server.events import events
from fedcondense.server.intake import receive, stored_digests
from fedcondense.server.opening import open_round

SITES = ("site-1", "site-2")
HASTY = ("LOOK", "ASK_FLOWER", "GRACE")
PAUSES = ("FIRST_PAUSE", "LONGEST_PAUSE")


@dataclass
class StandIn:
    """Flower, as the parent sees it: one act for each life of it."""

    office: Office
    applicants: dict[str, Applicant]
    acts: list[Callable[[StandIn], None]]
    lives: int = 0
    rounds: list[int | None] = field(default_factory=list)
    enrolled: list[list[str]] = field(default_factory=list)
    alive: bool = False
    ended: bool = False

    @property
    def current(self) -> CurrentRun:
        found = find_run(self.office.config, study_of(self.office.config))
        assert found is not None
        return found

    def __call__(self, config: Any, run: Any) -> StandIn:
        return self

    @contextlib.contextmanager
    def running(self) -> Iterator[StandIn]:
        self.alive, self.ended = True, False
        self.rounds.append(self.current.open_round)
        self.lives += 1
        act = self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]
        self._act = act
        if act is cannot_start:
            raise FederationError("Flower's SuperLink did not start", hint="see the log")
        yield self

    def enrol(self, sites: Any) -> None:
        self.enrolled.append(sorted(sites))

    def open(self) -> None: ...

    def submit(self) -> int:
        self._act(self)
        return self.lives

    def is_alive(self) -> bool:
        return self.alive

    def has_ended(self, run: int) -> bool:
        return self.ended

    def contribute(self, *sites: str, seed: int | None = None) -> None:
        """Store what sites sealed, as the ServerApp does; sets of one seed are equal."""
        current, number = self.current, self.number
        request = Request(current.run.description(), number)
        for site in sorted(set(sites) - set(stored_digests(current.run, number))):
            own = sorted(self.applicants).index(site)
            payload = payload_of(current.study, seed=own if seed is None else seed)
            released = decided(payload, current.study, round=number)
            blob = seal(released, request, site, current.study, self.applicants[site].signing)
            receive(current.run, blob, number, sender=site)

    @property
    def number(self) -> int:
        return self.current.open_round or self.current.rounds

    def finish(self, **codes: dict[str, str]) -> None:
        run, number = self.current.run, self.number
        stored = stored_digests(run, number)
        missing = {site: "FC502" for site in run.enrolled if site not in stored}
        write_intake(run.intake(number), Intake(number, stored, {}, {}, missing, **codes))


def all_answer(flower: StandIn) -> None:
    flower.contribute(*SITES)
    flower.finish()


def one_answers(flower: StandIn) -> None:
    flower.contribute("site-1")
    flower.finish()


def dies(flower: StandIn) -> None:
    flower.alive = False


def cannot_start(flower: StandIn) -> None:
    """Fails before the public port is open."""


def loses_the_submission(flower: StandIn) -> None:
    raise FederationError("Flower did not take the run", hint="see the log")


@dataclass
class Played:
    """A server with its Flower, and what it concluded and finished."""

    office: Office
    flower: StandIn
    concluded: list[tuple[str, ...]] = field(default_factory=list)
    finished: int = 0
    meanwhile: Callable[[], object] = field(default=lambda: None)  # while a round is concluded

    def serve(self) -> CurrentRun:
        return deployment.serve(self.office.config, conclude=self._conclude, finish=self._finish)

    def _conclude(self, current: CurrentRun, number: int) -> None:
        assert current.opening_key()
        self.concluded.append(tuple(stored_digests(current.run, number)))
        self.meanwhile()
        write_json(current.run.done(number), {})

    def _finish(self, current: CurrentRun) -> None:
        assert not current.key_path.exists()
        self.finished += 1
        write_json(current.run.report_json_path, {})

    def told(self) -> list[str]:
        return [event["event"] for event in events(self.flower.current.run)]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Played]:
    """A server of two sites and quorum 2, whose Flower lives as it is told."""

    def make(
        *acts: Callable[[StandIn], None],
        deadline: str = "72 h",
        sites: tuple[str, ...] = SITES,
        **changes: Any,
    ) -> Played:
        times = {"deadline": deadline, "joining": "1 s"}
        office = make_office(tmp_path, study=small_study(**changes), time=times)
        applicants = {name: Applicant(name) for name in sites}
        for applicant in applicants.values():
            office.register.enroll(applicant.write(tmp_path / "mail"), now=time.time())
        flower = StandIn(office, applicants, list(acts))
        monkeypatch.setattr(deployed_round, "SuperLink", flower)
        monkeypatch.setattr(deployment, "check_tls", lambda config: None)
        for name in HASTY:
            monkeypatch.setattr(deployed_round, name, 0.001)
        monkeypatch.setattr(deployed_round, "longest_telling", lambda run, round, sites: 0.001)
        for name in PAUSES:
            monkeypatch.setattr(restarts, name, 0.001)
        return Played(office, flower)

    return make


def test_a_study_ends_with_a_report_and_without_its_opening_key(play: Any) -> None:
    played = play(all_answer)

    current = played.serve()

    assert played.concluded == [SITES]
    assert (played.finished, current.is_finished) == (1, True)
    assert not current.key_path.exists()
    assert played.told() == [
        "begun",
        "enrolled",
        "asking",
        "concluding",
        "concluded",
        "told",
        "key deleted",
        "finished",
    ]


def test_a_finished_study_is_left_alone(play: Any) -> None:
    played = play(all_answer)
    first = played.serve()

    second = played.serve()

    assert second.run.path == first.run.path
    assert (played.flower.lives, played.finished) == (1, 1)


def test_all_enrolled_sites_may_connect_and_are_to_be_asked(play: Any) -> None:
    played = play(all_answer)
    began = time.time()

    current = played.serve()

    assert played.flower.enrolled[0] == list(SITES)
    assert read_plan(current.run.request(1)).joining == pytest.approx(began + 1, abs=3)


def test_what_dies_is_started_again_and_what_was_stored_stays(play: Any) -> None:
    def half(flower: StandIn) -> None:
        flower.contribute("site-1")
        flower.alive = False

    def rest(flower: StandIn) -> None:
        flower.contribute("site-2")
        flower.finish()

    played = play(half, dies, rest)

    played.serve()

    assert (played.flower.lives, played.concluded) == (3, [SITES])
    assert played.told().count("flower restarted") == 2


def test_a_run_of_flowers_that_ends_too_early_is_begun_again(play: Any) -> None:
    def ends(flower: StandIn) -> None:
        flower.ended = True

    played = play(ends, all_answer)

    played.serve()

    assert played.flower.lives == 2


def test_flower_that_never_worked_is_an_error_at_once(play: Any) -> None:
    played = play(cannot_start)

    with pytest.raises(FederationError, match="SuperLink did not start"):
        played.serve()

    assert played.flower.lives == 1


def test_flower_that_worked_once_is_tried_again(play: Any) -> None:
    played = play(dies, cannot_start, all_answer)

    played.serve()

    assert played.flower.lives == 3


def test_flower_that_dies_while_the_run_is_submitted_is_started_again(play: Any) -> None:
    played = play(loses_the_submission, all_answer)

    played.serve()

    assert played.flower.lives == 2


def test_flower_that_dies_again_and_again_is_given_up(play: Any) -> None:
    played = play(dies)

    with pytest.raises(FederationError, match=r"Flower died 10 times: Flower's SuperLink or"):
        played.serve()

    assert played.flower.lives == restarts.MOST_FAILURES


def test_deaths_far_apart_end_no_study(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarts, "STEADY", 0.0)
    played = play(*[dies] * 12, all_answer)

    played.serve()

    assert (played.flower.lives, played.concluded) == (13, [SITES])


def test_pauses_double_and_begin_anew_after_a_steady_life() -> None:
    deaths = restarts.Restarts()

    pauses = [deaths.count(uptime=up, has_stored=False) for up in (5.0, 5.0, 5.0, 600.0, 5.0)]

    assert pauses == [2, 4, 8, 2, 4]


def test_below_the_quorum_nothing_is_concluded_and_the_missing_are_named(play: Any) -> None:
    played = play(one_answers)

    with pytest.raises(QuorumMissed, match="1 of 2 sites contributed, the quorum is 2") as missed:
        played.serve()

    assert missed.value.message.endswith(": site-2 FC502")
    assert played.concluded == []
    assert played.flower.current.key_path.exists()


def test_a_contribution_refused_at_its_opening_leaves_the_quorum_to_the_others(play: Any) -> None:
    def two_equal_sets(flower: StandIn) -> None:
        flower.contribute("site-1", "site-2", seed=0)
        flower.finish()

    def another(flower: StandIn) -> None:
        flower.contribute("site-3")
        flower.finish()

    def open_all() -> None:
        current = played.flower.current
        open_round(current.run, 1, current.opening_key())

    played = play(two_equal_sets, another, sites=(*SITES, "site-3"))
    played.meanwhile = open_all
    with pytest.raises(QuorumMissed, match="1 valid contributions"):
        played.serve()

    current = played.serve()

    assert played.flower.lives == 2
    assert played.concluded == [SITES, (*SITES, "site-3")]
    assert current.is_finished


def test_the_same_command_gives_a_missed_quorum_more_time(play: Any) -> None:
    played = play(one_answers, all_answer, deadline="1 s")
    with pytest.raises(QuorumMissed):
        played.serve()
    first = played.flower.current.run.description()
    time.sleep(1.1)

    played.serve()

    second = played.flower.current.run.description()
    assert second.deadline > first.deadline
    assert (second.run, second.recipient) == (first.run, first.recipient)
    assert played.concluded == [SITES]


def test_what_a_killed_server_left_half_written_is_gone_with_the_next(play: Any) -> None:
    def killed(flower: StandIn) -> None:
        raise KeyboardInterrupt

    played = play(killed, all_answer)
    with pytest.raises(KeyboardInterrupt):
        played.serve()
    left = played.flower.current.run.path / ".events.jsonl.0123456789ab.tmp"
    left.touch()
    os.utime(left, (0, 0))

    played.serve()

    assert not left.exists()


def test_a_round_that_was_collected_before_a_death_is_concluded_without_flower(play: Any) -> None:
    def killed(flower: StandIn) -> None:
        all_answer(flower)
        raise KeyboardInterrupt

    played = play(killed, lambda flower: None)
    with pytest.raises(KeyboardInterrupt):
        played.serve()

    played.serve()

    assert played.concluded == [SITES]
    assert "resumed" in played.told()
    assert played.flower.lives == 2  # the second one to tell the sites


def test_after_the_deadline_the_parent_concludes_with_what_stands_there(play: Any) -> None:
    played = play(lambda flower: flower.contribute(*SITES), deadline="1 s")

    played.serve()

    assert played.concluded == [SITES]
    intake = read_intake(played.flower.current.run.intake(1))
    assert set(intake.stored) == set(SITES)


def test_a_concluded_round_whose_report_is_missing_is_not_concluded_again(play: Any) -> None:
    played = play(all_answer)
    current = played.serve()
    current.run.report_json_path.unlink()

    played.serve()

    assert (played.flower.lives, played.finished, len(played.concluded)) == (1, 2, 1)


def test_a_run_whose_opening_key_is_lost_asks_nobody(play: Any) -> None:
    played = play(one_answers)
    with pytest.raises(QuorumMissed):
        played.serve()
    played.flower.current.key_path.unlink()

    with pytest.raises(KeyFileError, match="the opening key of this run is gone"):
        played.serve()

    assert played.flower.lives == 1


def test_a_revocation_reaches_flower_while_the_run_goes_on(play: Any) -> None:
    def revoke_then_answer(flower: StandIn) -> None:
        flower.contribute(*SITES)
        flower.office.register.revoke("site-2", now=time.time())

    played = play(revoke_then_answer, deadline="2 s")

    with pytest.raises(QuorumMissed, match="1 of 1 sites contributed"):
        played.serve()

    assert played.flower.enrolled[-1] == ["site-1"]
    run = played.flower.current.run
    assert list(stored_digests(run, 1)) == ["site-1"]
    [aside] = (run.round(1) / "withdrawn").iterdir()
    assert aside.name.startswith("site-2-")
    assert sha256(aside.read_bytes()).startswith(aside.stem.rpartition("-")[2])


def test_rounds_are_played_one_after_another_by_one_run_with_one_key(play: Any) -> None:
    played = play(all_answer, rounds=3)

    current = played.serve()

    assert played.flower.rounds == [1, 2, 3]
    assert played.concluded == [SITES] * 3
    assert (played.finished, current.key_path.exists()) == (1, False)
    assert played.told().count("told") == 1


def test_a_further_round_has_as_much_time_as_the_first(play: Any) -> None:
    deadlines = []

    def answer(flower: StandIn) -> None:
        deadlines.append(flower.current.run.description().deadline)
        time.sleep(1.1)
        all_answer(flower)

    played = play(answer, rounds=2)

    played.serve()

    assert deadlines[1] > deadlines[0]


def test_a_site_that_missed_a_round_is_asked_again_in_the_next(play: Any) -> None:
    def only_one(flower: StandIn) -> None:
        flower.contribute("site-1")
        flower.finish()

    played = play(only_one, all_answer, rounds=2, quorum=1)

    played.serve()

    assert played.concluded == [("site-1",), SITES]


def test_a_study_whose_sites_cannot_be_told_is_finished_all_the_same(play: Any) -> None:
    def killed(flower: StandIn) -> None:
        all_answer(flower)
        raise KeyboardInterrupt

    played = play(killed, cannot_start)
    with pytest.raises(KeyboardInterrupt):
        played.serve()

    played.serve()

    assert played.finished == 1


@pytest.mark.parametrize("end", ["alive", "ended"])
def test_sites_are_told_by_another_flower_where_the_first_ends_during_the_conclusion(
    play: Any, end: str
) -> None:
    def tells(flower: StandIn) -> None:
        write_told(flower.current.run.told(1), Told(SITES, {}))

    played = play(all_answer, tells)
    played.meanwhile = lambda: setattr(played.flower, end, end == "ended")

    current = played.serve()

    assert played.flower.lives == 2
    assert read_told(current.run.told(1)).sites == SITES
    assert (len(played.concluded), played.told().count("told")) == (1, 1)


def test_who_is_revoked_during_the_conclusion_is_not_told(play: Any) -> None:
    played = play(all_answer)
    register = played.office.register
    played.meanwhile = lambda: register.revoke("site-2", now=time.time())

    current = played.serve()

    assert played.flower.enrolled[-1] == ["site-1"]
    assert list(current.run.enrolled) == ["site-1"]
    assert played.flower.lives == 1


def test_a_study_whose_further_rounds_cannot_be_sent_is_not_begun(play: Any) -> None:
    large = {"images_per_class": 200, "image": {"size": 224}, "distill": {"method": "dm"}}
    sites = tuple(f"site-{number}" for number in range(4))
    played = play(all_answer, sites=sites, rounds=2, **large)

    with pytest.raises(SettingsError, match="the global set of 4 sites is above the 64 MB"):
        played.serve()

    assert played.flower.lives == 0
    assert not list(played.office.config.runs.glob("*Z"))
