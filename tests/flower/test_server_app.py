"""The ServerApp against a Grid that plays a script."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from federation_kit import PATIENT, Repetition, make_repetition
from flwr.app import Context, Error, Message, RecordDict
from grid_kit import MessageGrid
from wire_kit import payload_of

from fedcondense.errors import RunDirectoryError
from fedcondense.exchange.keys import fingerprint_digits
from fedcondense.exchange.round_result import SCORES
from fedcondense.exchange.sealing import Opened
from fedcondense.exchange.shared_set import SharedSet
from fedcondense.files.storage import sha256, write_json
from fedcondense.flower import asking, server_app, telling
from fedcondense.flower.asking import result_of_round
from fedcondense.flower.messages import (
    CONTRIBUTE,
    HELLO,
    RESULT,
    Ask,
    Outcome,
    Reply,
    read_request,
    to_reply,
)
from fedcondense.flower.round_files import (
    Intake,
    Plan,
    Told,
    longest_telling,
    marks_path,
    read_intake,
    read_marks,
    read_told,
    seconds_to_tell,
    write_intake,
    write_plan,
)
from fedcondense.server.aggregate import aggregate, write_global_set
from fedcondense.server.conclude import publish

Script = Callable[[Message], Message | None]


class ScriptedGrid(MessageGrid):
    """Node n plays the n-th site; a script answers at once or, with None, never."""

    def __init__(self, repetition: Repetition) -> None:
        self.repetition = repetition
        self.scripts: dict[tuple[str, str], Script] = {}
        self.asked: list[str] = []
        self.waiting: dict[str, Message] = {}
        self._numbers = itertools.count(1)

    def says(self, site: str, kind: str, answer: Script) -> None:
        self.scripts[site, kind] = answer

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        for message in messages:
            number = f"message-{next(self._numbers)}"
            message.metadata.__dict__["_message_id"] = number
            site = self.repetition.names[message.metadata.dst_node_id - 1]
            kind = message.metadata.message_type
            if kind == CONTRIBUTE:
                self.asked.append(site)
            answer = self.scripts.get((site, kind), self._well)(message)
            if answer is not None:
                self.waiting[number] = answer
            yield number

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self.waiting.pop(number) for number in list(message_ids) if number in self.waiting]

    def _well(self, message: Message) -> Message:
        site = self.repetition.names[message.metadata.dst_node_id - 1]
        if message.metadata.message_type != CONTRIBUTE:
            return to_reply(
                Reply(Outcome.READY, signing_key=key_of(self.repetition, site)), message
            )
        sealed = self.repetition.sealed(site)
        return to_reply(Reply(Outcome.SEALED, sealed=sealed), message)

    def get_node_ids(self) -> Iterable[int]:
        return range(1, len(self.repetition.names) + 1)


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_app, "PAUSE", 0.01)
    monkeypatch.setattr(telling, "PAUSE", 0.01)


@pytest.fixture
def grid(repetition: Repetition) -> ScriptedGrid:
    return ScriptedGrid(repetition)


def key_of(repetition: Repetition, site: str) -> str:
    return fingerprint_digits(repetition.keys[site].fingerprint)


def collect(grid: ScriptedGrid, *ask: str, at_once: int = 2, **codes: dict[str, str]) -> Intake:
    plan = Plan(1, ask or tuple(grid.repetition.names), at_once, **codes)
    return server_app.Collection(grid, grid.repetition.run, plan).collect()


def replying(reply: Reply) -> Script:
    return lambda message: to_reply(reply, message)


def dying(message: Message) -> Message:
    return Message(Error(code=0, reason=PATIENT), reply_to=message)


def never(message: Message) -> None:
    return None


def test_each_contribution_is_stored_sealed_under_its_sites_name(grid: ScriptedGrid) -> None:
    intake = collect(grid)

    run = grid.repetition.run
    digests = {site: sha256(run.sealed(1, site).read_bytes()) for site in grid.repetition.names}
    assert intake == Intake(1, digests, {}, {}, {}, ("site-1", "site-2", "site-3"))


def test_refusals_and_failures_keep_the_sites_own_code(grid: ScriptedGrid) -> None:
    grid.says("site-1", CONTRIBUTE, replying(Reply(Outcome.REFUSED, "FC401")))
    grid.says("site-2", CONTRIBUTE, replying(Reply(Outcome.FAILED, "FC203")))

    intake = collect(grid)

    assert intake.refused == {"site-1": "FC401"}
    assert intake.failed == {"site-2": "FC203"}
    assert list(intake.stored) == ["site-3"]


def test_a_site_whose_process_died_is_missing_and_flowers_text_is_not_kept(
    grid: ScriptedGrid,
) -> None:
    grid.says("site-2", CONTRIBUTE, dying)

    intake = collect(grid, at_once=3)

    assert intake.missing == {"site-2": "FC502"}
    assert intake.lost == ("site-2",)
    assert PATIENT not in repr(intake)


def test_after_a_death_nobody_else_is_asked_and_who_was_asked_is_waited_for(
    grid: ScriptedGrid,
) -> None:
    grid.says("site-2", CONTRIBUTE, dying)

    intake = collect(grid, at_once=2)

    assert grid.asked == ["site-1", "site-2"]
    assert list(intake.stored) == ["site-1"]
    assert (intake.lost, intake.unasked) == (("site-2",), ("site-3",))


def test_a_late_site_is_missing_at_the_deadline(tmp_path: Any) -> None:
    grid = ScriptedGrid(make_repetition(tmp_path, sites=2, seconds=2))
    grid.says("site-2", CONTRIBUTE, never)
    began = time.time()

    intake = collect(grid)

    assert list(intake.stored) == ["site-1"]
    assert intake.missing == {"site-2": "FC502"}
    assert time.time() - began < 4


def test_requests_are_not_delivered_long_after_the_deadline(grid: ScriptedGrid) -> None:
    seen: list[float] = []
    grid.says("site-1", CONTRIBUTE, lambda message: seen.append(message.metadata.ttl))

    server_app.Collection(grid, grid.repetition.run, Plan(1, ("site-2",), 1)).collect()
    next(
        server_app.Post(grid, server_app.Ask(b"{}", 1), time.time() + 50).exchange(
            CONTRIBUTE, [1], at_once=1
        )
    )

    assert seen[0] == pytest.approx(50 + 120, abs=5)


def test_a_contribution_that_stands_is_not_asked_for_again(grid: ScriptedGrid) -> None:
    first = collect(grid, "site-1")
    grid.asked.clear()

    second = collect(grid)

    assert grid.asked == ["site-2", "site-3"]
    assert second.stored["site-1"] == first.stored["site-1"]
    assert second.asked == ("site-2", "site-3")


def test_sites_are_asked_in_the_order_of_the_plan_and_no_others(grid: ScriptedGrid) -> None:
    intake = collect(grid, "site-3", "site-1")

    assert grid.asked == ["site-3", "site-1"]
    assert intake.unasked == ("site-2",)


def test_what_sites_said_in_an_earlier_flower_run_still_stands(grid: ScriptedGrid) -> None:
    intake = collect(grid, "site-3", refused={"site-1": "FC401"}, failed={"site-2": "FC202"})

    assert intake.refused == {"site-1": "FC401"}
    assert intake.failed == {"site-2": "FC202"}
    assert intake.missing == {}


def test_a_site_cannot_send_anothers_contribution(grid: ScriptedGrid) -> None:
    stolen = Reply(Outcome.SEALED, sealed=grid.repetition.sealed("site-1"))
    grid.says("site-2", CONTRIBUTE, replying(stolen))

    intake = collect(grid)

    assert intake.failed == {"site-2": "FC402"}
    assert list(intake.stored) == ["site-1", "site-3"]


def test_bytes_that_are_no_contribution_fail_the_site_alone(grid: ScriptedGrid) -> None:
    grid.says("site-2", CONTRIBUTE, replying(Reply(Outcome.SEALED, sealed=b"PK\x03\x04")))

    intake = collect(grid)

    assert intake.failed == {"site-2": "FC402"}
    assert list(intake.stored) == ["site-1", "site-3"]


def test_a_message_that_is_no_reply_fails_the_site_alone(grid: ScriptedGrid) -> None:
    grid.says("site-2", CONTRIBUTE, lambda message: Message(RecordDict(), reply_to=message))

    assert collect(grid).failed == {"site-2": "FC402"}


def test_a_site_that_is_not_ready_is_not_asked(grid: ScriptedGrid) -> None:
    key = key_of(grid.repetition, "site-2")
    grid.says("site-2", HELLO, replying(Reply(Outcome.FAILED, "FC404", key)))

    intake = collect(grid)

    assert grid.asked == ["site-1", "site-3"]
    assert intake.failed == {"site-2": "FC404"}


@pytest.mark.parametrize(
    "answer",
    [
        replying(Reply(Outcome.READY, signing_key="ab" * 32)),
        replying(Reply(Outcome.FAILED, "FC502")),
        lambda message: Message(RecordDict(), reply_to=message),
        dying,
    ],
)
def test_a_node_that_names_no_enrolled_site_leaves_its_site_missing(
    grid: ScriptedGrid, answer: Script
) -> None:
    grid.says("site-2", HELLO, answer)

    intake = collect(grid)

    assert intake.unasked == ("site-2",)
    assert list(intake.stored) == ["site-1", "site-3"]


def test_a_reply_to_nothing_that_was_asked_is_passed_over(grid: ScriptedGrid) -> None:
    pull = grid.pull_messages

    def with_a_stray(message_ids: Iterable[str]) -> Iterable[Message]:
        for message in pull(message_ids):
            stray = Message(message.content, reply_to=message)
            yield from (stray, message)

    grid.pull_messages = with_a_stray  # type: ignore[method-assign]

    assert list(collect(grid).stored) == grid.repetition.names


def test_the_times_of_a_run_are_marked_in_order(grid: ScriptedGrid) -> None:
    collect(grid)

    times = read_marks(marks_path(grid.repetition.run.round(1)))
    assert list(times) == ["began", "first_hello", "first_push", "last_reply"]
    assert sorted(times.values()) == list(times.values())


def test_the_app_writes_its_intake_and_ends_once_the_round_is_done(grid: ScriptedGrid) -> None:
    run = grid.repetition.run
    write_plan(run.request(1), Plan(1, ("site-1",), 1))
    conclude(grid.repetition)
    config = {"run-directory": str(run.path)}

    server_app.app(grid, Context(1, 1, {}, RecordDict(), config))

    intake = read_intake(run.intake(1))
    assert list(intake.stored) == ["site-1"]
    assert intake.asked == ("site-1",)
    assert read_told(run.told(1)) == Told(("site-1", "site-2", "site-3"), {})


def test_a_concluded_round_is_not_collected_again_only_told(grid: ScriptedGrid) -> None:
    run = grid.repetition.run
    write_plan(run.request(1), Plan(1, ("site-1",), 1))
    write_intake(run.intake(1), Intake(1, {}, {}, {}, {}))
    conclude(grid.repetition)

    server_app.app(grid, Context(1, 1, {}, RecordDict(), {"run-directory": str(run.path)}))

    assert grid.asked == []
    assert run.told(1).exists()


def test_a_round_that_is_being_concluded_is_not_collected_again(
    grid: ScriptedGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = grid.repetition.run
    write_plan(run.request(1), Plan(1, ("site-1",), 1))
    write_intake(run.intake(1), Intake(1, {}, {}, {}, {}))
    monkeypatch.setattr(server_app, "wait_for", lambda *_: conclude(grid.repetition) is not None)

    server_app.app(grid, Context(1, 1, {}, RecordDict(), {"run-directory": str(run.path)}))

    assert grid.asked == []
    assert run.told(1).exists()


def test_from_the_second_round_on_a_request_carries_what_the_one_before_gave(
    tmp_path: Path,
) -> None:
    grid = ScriptedGrid(make_repetition(tmp_path, sites=1, rounds=2))
    given = conclude(grid.repetition)
    seen: dict[str, Ask] = {}

    def answer(message: Message) -> Message:
        seen[message.metadata.message_type] = read_request(message)
        return grid._well(message)

    for kind in (HELLO, CONTRIBUTE):
        grid.says("site-1", kind, answer)
    server_app.Collection(grid, grid.repetition.run, Plan(2, ("site-1",), 1)).collect()

    assert seen[HELLO].result == seen[HELLO].data == b""
    assert (seen[CONTRIBUTE].round, seen[CONTRIBUTE].data) == (2, given.data)
    assert seen[CONTRIBUTE].result == grid.repetition.run.result(1).read_bytes()


def test_a_late_answer_to_an_earlier_round_is_not_taken_for_one_to_this_round(
    tmp_path: Path,
) -> None:
    grid = ScriptedGrid(make_repetition(tmp_path, sites=2, rounds=2))
    conclude(grid.repetition)
    late = Reply(Outcome.SEALED, sealed=grid.repetition.sealed("site-1"))  # of round 1
    grid.says("site-1", CONTRIBUTE, replying(late))
    on_time = Reply(Outcome.SEALED, sealed=grid.repetition.sealed("site-2", round=2))
    grid.says("site-2", CONTRIBUTE, replying(on_time))

    plan = Plan(2, ("site-1", "site-2"), 2)
    intake = server_app.Collection(grid, grid.repetition.run, plan).collect()

    assert intake.failed == {"site-1": "FC402"}
    assert list(intake.stored) == ["site-2"]


def test_a_round_whose_predecessor_was_lost_asks_nobody(tmp_path: Path) -> None:
    repetition = make_repetition(tmp_path, sites=1, rounds=2)

    with pytest.raises(RunDirectoryError, match="what round 1 gave cannot be read"):
        server_app.Collection(ScriptedGrid(repetition), repetition.run, Plan(2, ("site-1",), 1))


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (replying(Reply(Outcome.FAILED, "FC404")), "FC404"),
        (lambda message: Message(RecordDict(), reply_to=message), "FC402"),
        (dying, "FC502"),
    ],
)
def test_a_site_that_does_not_take_the_result_is_named_and_holds_up_nobody(
    grid: ScriptedGrid, answer: Script, code: str
) -> None:
    repetition = grid.repetition
    conclude(repetition)
    grid.says("site-2", RESULT, answer)
    nodes = dict(zip(repetition.names, (1, 2, 3), strict=True))

    told = telling.Telling(grid, result_of_round(repetition.run, 1), lambda: nodes).tell()

    assert told == Told(("site-1", "site-3"), {"site-2": code})


def test_a_site_that_takes_in_less_than_the_set_is_told_the_scores_alone(
    grid: ScriptedGrid,
) -> None:
    def takes_little(message: Message) -> Message:
        outcome = Outcome.FAILED if "global" in message.content else Outcome.READY
        return to_reply(Reply(outcome, "FC409" if outcome is Outcome.FAILED else ""), message)

    repetition = grid.repetition
    conclude(repetition)
    grid.says("site-2", RESULT, takes_little)
    nodes = dict(zip(repetition.names, (1, 2, 3), strict=True))

    told = telling.Telling(grid, result_of_round(repetition.run, 1), lambda: nodes).tell()

    assert told == Told(("site-1", "site-2", "site-3"), {})


def test_a_set_that_no_site_takes_in_is_not_sent_but_its_result_is(
    repetition: Repetition, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = conclude(repetition)
    monkeypatch.setattr(asking, "LARGEST_GLOBAL_SET", len(shared.data) - 1)

    told = result_of_round(repetition.run, 1)

    assert told.data == b""
    assert told.result == repetition.run.result(1).read_bytes()


def test_a_site_that_is_away_is_not_waited_for_long(
    grid: ScriptedGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "seconds_to_tell", lambda sites, size: 0.3)
    conclude(grid.repetition)
    nodes = {"site-1": 1, "site-9": 9}

    told = telling.Telling(grid, result_of_round(grid.repetition.run, 1), lambda: nodes).tell()

    assert told == Told(("site-1",), {})


def test_sites_are_told_for_longer_the_more_there_is_to_send() -> None:
    assert seconds_to_tell(3, 1_000) == pytest.approx(90, abs=0.1)
    assert seconds_to_tell(20, 60_000_000) == 90 + 20 * 60


def test_a_parent_waits_longer_than_the_sites_are_told(repetition: Repetition) -> None:
    size = len(conclude(repetition).data)

    longest = longest_telling(repetition.run, 1, 3)

    assert longest > seconds_to_tell(3, size) + 30


def conclude(repetition: Repetition) -> SharedSet:
    """Leave what the parent leaves of round 1: a global set, its signed result, done.json."""
    run, study = repetition.run, repetition.study
    union = aggregate([Opened("site-1", payload_of(study), {})], study)
    write_global_set(run.global_set(1), union, study)
    scores = {name: dict.fromkeys(("mean", "low", "high"), 0.5) for name in SCORES}
    publish(run, 1, union, scores, repetition.operator)
    write_json(run.done(1), {})
    return union.shared


def test_waiting_has_an_end(repetition: Repetition) -> None:
    assert not server_app.wait_for(repetition.run.done(1), 0.05)
