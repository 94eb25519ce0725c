"""The phases of a study in which something is killed, and how a study is certainly brought there.

A condensation waits in the midst of its steps for as long as it is told to (`paced_kit`), so the
phases `condensing`, `checkpointing`, `second round` and `intake` last until the kill. The others
are hit by looking often. Of every phase `is_in` says whether it lasts: it must be true before the
kill and after it, or the phase was missed.

before hello   the server's ServerApp runs and no site does, or a site runs and no server does
waiting        one of two sites has been greeted, nobody was asked: the quorum is two
condensing     both sites are at step 120 of 200; the first has the state of step 119 on disk
checkpointing  the first site has written the state of step 120, which is not yet in its place
uploading      the first site has sealed, the server does not have it yet
intake         the server has stored one contribution, the other site still condenses
aggregating    all is collected and united, networks are being trained; no done.json
second round   as condensing, in the second of two rounds
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from paced_kit import Point
from played_study import FIRST, SECOND, SERVER, Study


@dataclass(frozen=True)
class Phase:
    """`lead` brings a study there, for a victim at the server or a site; `is_in`: it lasts."""

    lead: Callable[[Study, str], None]
    is_in: Callable[[Study], bool]
    rounds: int = 1


def _before_hello(study: Study, where: str) -> None:
    at_server = where == SERVER
    study.begin(SERVER if at_server else FIRST)
    if at_server:
        study.wait(lambda: study.pids(SERVER, "flwr-serverapp"), "ServerApp")
    else:
        study.wait(lambda: "SuperNode started" in study.said(FIRST), "SuperNode")


def _waiting(study: Study, where: str) -> None:
    study.begin(SERVER)
    study.begin(FIRST)
    study.wait(study.has_greeted, "greeting")


def _begin_all(study: Study) -> None:
    for name in (SERVER, FIRST, SECOND):
        study.begin(name)


def _condensing(study: Study, where: str) -> None:
    _hold(study, Point.STEP)
    _begin_all(study)
    study.wait(lambda: _condenses(study), "condensing")


def _checkpointing(study: Study, where: str) -> None:
    _hold(study, Point.WRITING)
    _begin_all(study)
    study.wait(lambda: _checkpoints(study), "checkpointing")


def _uploading(study: Study, where: str) -> None:
    study.paces[1].wait_at(Point.STEP)
    _begin_all(study)
    study.wait(study.has_sealed, "sealed contribution")


def _intake(study: Study, where: str) -> None:
    study.paces[1].wait_at(Point.STEP)
    _begin_all(study)
    study.wait(lambda: _is_half_taken(study), "half of the contributions")


def _aggregating(study: Study, where: str) -> None:
    _begin_all(study)
    study.wait(lambda: _aggregates(study), "aggregation")


def _second_round(study: Study, where: str) -> None:
    _begin_all(study)
    study.wait(lambda: len(study.stored()) == 2, "end of the first round")
    _hold(study, Point.STEP)
    study.wait(lambda: _condenses(study, 2), "condensing in the second round")


def _hold(study: Study, point: Point) -> None:
    for pace in study.paces:
        pace.wait_at(point)


def _condenses(study: Study, number: int = 1) -> bool:
    return study.all_wait() and study.has_checkpoint(number)


def _checkpoints(study: Study) -> bool:
    return _condenses(study) and study.is_writing_checkpoint()


def _uploads(study: Study) -> bool:
    return study.has_sealed() and FIRST not in study.stored()


def _is_half_taken(study: Study) -> bool:
    return (
        study.stored() == {FIRST} and study.paces[1].is_waiting() and not study.has("intake.json")
    )


def _aggregates(study: Study) -> bool:
    begun = study.has("intake.json") and study.has("global/manifest.json")
    return begun and not study.has("done.json")


PHASES = {
    "before hello": Phase(_before_hello, lambda study: not study.has_greeted()),
    "waiting": Phase(_waiting, lambda study: study.has_greeted() and not study.has_begun()),
    "condensing": Phase(_condensing, _condenses),
    "checkpointing": Phase(_checkpointing, _checkpoints),
    "uploading": Phase(_uploading, _uploads),
    "intake": Phase(_intake, _is_half_taken),
    "aggregating": Phase(_aggregating, _aggregates),
    "second round": Phase(_second_round, lambda study: _condenses(study, 2), rounds=2),
}
