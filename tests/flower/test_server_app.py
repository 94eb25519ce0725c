"""The ServerApp against a Grid that plays a script."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from federation_kit import PATIENT, Repetition, make_repetition
from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid

from fedcondense.exchange.keys import fingerprint_digits
from fedcondense.files.storage import sha256, write_json
from fedcondense.flower import server_app
from fedcondense.flower.messages import CONTRIBUTE, HELLO, Outcome, Reply, to_reply
from fedcondense.flower.round_files import (
    Intake,
    Plan,
    marks_path,
    read_intake,
    read_marks,
    write_plan,
)

Script = Callable[[Message], Message | None]


class ScriptedGrid(Grid):
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
        if message.metadata.message_type == HELLO:
            return to_reply(
                Reply(Outcome.READY, signing_key=key_of(self.repetition, site)), message
            )
        sealed = self.repetition.sealed(site)
        return to_reply(Reply(Outcome.SEALED, sealed=sealed), message)

    def get_node_ids(self) -> Iterable[int]:
        return range(1, len(self.repetition.names) + 1)

    def set_run(self, run: Any) -> None: ...

    def create_message(self, *_: Any, **__: Any) -> Message:
        raise NotImplementedError

    def get_nodes(self) -> Any:
        raise NotImplementedError

    def send_and_receive(self, *_: Any, **__: Any) -> Iterable[Message]:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_app, "PAUSE", 0.01)


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
    write_json(run.done(1), {})
    config = {"run-directory": str(run.path)}

    server_app.app(grid, Context(1, 1, {}, RecordDict(), config))

    intake = read_intake(run.intake(1))
    assert list(intake.stored) == ["site-1"]
    assert intake.asked == ("site-1",)


def test_waiting_has_an_end(repetition: Repetition) -> None:
    assert not server_app.wait_for(repetition.run.done(1), 0.05)
