"""One round of a deployed run, as the parent plays it: Flower collects, the parent concludes.

Whatever of Flower dies is started again, with growing pauses; what was stored stays. At the
deadline the parent goes on alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from fedcondense.config.server import ServerConfig, seconds_of
from fedcondense.errors import FederationError, QuorumMissed
from fedcondense.exchange.enrolment_request import EnrolmentRequest
from fedcondense.flower.notify import READY, notify
from fedcondense.flower.restarts import Restarts
from fedcondense.flower.round_files import (
    Intake,
    Plan,
    Told,
    longest_telling,
    read_intake,
    read_progress,
    read_told,
    write_intake,
    write_plan,
    write_told,
)
from fedcondense.flower.superlink import MEBIBYTE, SuperLink
from fedcondense.progress import Step, Watch
from fedcondense.server.current_run import CurrentRun, demand_key, renew_deadline
from fedcondense.server.enrolment import Register, admit
from fedcondense.server.events import note
from fedcondense.server.intake import rejected_sites, stored_digests, stored_sites

LOOK = 0.5  # seconds between two looks at the run directory and at Flower's processes
ASK_FLOWER = 10.0  # seconds between two questions to the SuperLink, and two looks at enrolled/
GRACE = 30.0  # seconds beyond the deadline for the ServerApp to write its intake
_log = logging.getLogger(__name__)

Conclude = Callable[[CurrentRun, int], None]


@runtime_checkable
class Collector(Protocol):
    """A SuperLink that answers: `superlink.Running`."""

    def enrol(self, sites: Mapping[str, EnrolmentRequest]) -> object:
        """Let the nodes of these sites connect and no others."""

    def open(self) -> None:
        """Let SuperNodes connect."""

    def submit(self) -> int:
        """Begin a run of Flower's and return its number."""

    def is_alive(self) -> bool:
        """Whether its processes live."""

    def has_ended(self, run: int) -> bool:
        """Whether a run of Flower's is over."""


@dataclass
class Due:
    """Says once in so many seconds that it is time."""

    seconds: float
    last: float = field(default_factory=time.monotonic)

    def __call__(self) -> bool:
        """Whether it is time; if so, the seconds begin anew."""
        is_due = time.monotonic() - self.last >= self.seconds
        self.last = time.monotonic() if is_due else self.last
        return is_due


@dataclass
class DeployedRound:
    """One round of a run, from wherever an earlier process left it."""

    config: ServerConfig
    current: CurrentRun
    number: int
    conclude: Conclude
    watch: Watch
    restarts: Restarts = field(default_factory=Restarts)
    told: tuple[int, int] | None = None
    has_worked: bool = False
    flower_run: int = 0
    admitted: dict[str, EnrolmentRequest] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.run = self.current.run
        self.register = Register(self.config.enrolled, self.config.revoked)

    def play(self) -> None:
        """Collect, where that is not done, and conclude."""
        demand_key(self.current)
        self._admit()
        if self._is_collected():
            notify(READY)
            self._conclude()
            return
        self._ask_for_the_round()
        while not self._live_once():
            time.sleep(self.restarts.pause)

    def tell_sites(self) -> None:
        """Tell the sites what the study gave, where Flower did not live to do so; tried once."""
        self._admit()
        try:
            with SuperLink(self.config, self.run).running() as flower:
                flower.enrol(self.admitted)
                flower.open()
                self.flower_run = flower.submit()
                self._await_telling(flower)
        except FederationError as error:
            _log.warning("the sites were not told that the study is over: %s", error.message)
        if not self.run.told(self.number).exists():
            self._end_telling()

    def _is_collected(self) -> bool:
        """Whether an earlier process has collected this round, or its time is over.

        What was refused when it was opened counts for nothing: the others are asked again.
        """
        stored = set(self._stored()) - rejected_sites(self.run, self.number)
        if len(stored) < self.current.study.quorum:
            return False
        return self.run.intake(self.number).exists() or time.time() >= self._deadline

    def _ask_for_the_round(self) -> None:
        """Say what is to be collected; a further round, and one below the quorum, has time anew."""
        self.run.intake(self.number).unlink(missing_ok=True)
        is_further = self.number > 1 and not self.run.request(self.number).exists()
        if is_further or time.time() >= self._deadline:
            renew_deadline(self.config, self.current, now=time.time())
            note(self.run, "deadline renewed", round=self.number)
        span = seconds_of(self.config.time.deadline) - seconds_of(self.config.time.joining)
        limits = self.config.limits
        plan = Plan(
            round=self.number,
            joining=self._deadline - span,
            attempts=limits.attempts,
            stored_bytes=limits.stored_megabytes * MEBIBYTE,
        )
        write_plan(self.run.request(self.number), plan)

    def _live_once(self) -> bool:
        """One life of Flower's; whether the round is concluded at its end.

        Raises:
            FederationError: it could not even be started, or died too often.
        """
        stored, began = len(self._stored()), time.monotonic()
        try:
            with SuperLink(self.config, self.run).running() as flower:
                reason = self._collect(flower)
                if reason is None:
                    self._conclude()
                    if self.number == self.current.rounds:
                        self._await_telling(flower)
                    return True
        except FederationError as error:
            if not self.has_worked:
                raise  # somebody has to look at it
            reason = error.message
        uptime, has_stored = time.monotonic() - began, len(self._stored()) > stored
        pause = self.restarts.count(uptime=uptime, has_stored=has_stored)
        failures = self.restarts.failures
        note(self.run, "flower restarted", round=self.number, failures=failures)
        _log.warning("%s; starting it again in %.0f s", reason, pause)
        if self.restarts.is_hopeless:
            raise FederationError(
                f"Flower died {failures} times: {reason}",
                hint=f"see the end of {self.run.path / 'flower' / 'flower.log'}",
            )
        return False

    def _collect(self, flower: Collector) -> str | None:
        """Let Flower collect; why it broke off, or None when it is done."""
        flower.enrol(self.admitted)
        flower.open()
        self.has_worked = True
        notify(READY)
        self.flower_run = flower.submit()
        note(self.run, "asking", round=self.number, enrolled=len(self.admitted))
        due = Due(ASK_FLOWER)
        while not self._is_over():
            if not flower.is_alive():
                return "Flower's SuperLink or its superexec has died"
            if due():
                self._let_in(flower)
                if flower.has_ended(self.flower_run) and not self._is_over():
                    return "Flower's run has ended before the round did"
            self._tell()
            time.sleep(LOOK)
        self._tell()
        return None

    def _await_telling(self, flower: Collector) -> None:
        """Wait until all sites that are online have been told; nobody is waited for long.

        Where Flower ends before it has told them, nothing is written: it can be started again.
        """
        told, longest = (
            self.run.told(self.number),
            longest_telling(self.run, self.number, self.sites),
        )
        until = time.monotonic() + longest
        due = Due(ASK_FLOWER)
        works = self._can_tell(flower)  # at once: who was revoked meanwhile is not to be told
        while works and not told.exists() and time.monotonic() < until:
            time.sleep(LOOK)
            works = flower.is_alive() and (not due() or self._can_tell(flower))
        if works or told.exists():
            self._end_telling()

    def _can_tell(self, flower: Collector) -> bool:
        """Whether Flower's processes and its run live, and know who is enrolled now."""
        try:
            self._let_in(flower)
            return flower.is_alive() and not flower.has_ended(self.flower_run)
        except FederationError:
            return False

    def _end_telling(self) -> None:
        """Note who was told; tried is tried: the study is over all the same."""
        told = self.run.told(self.number)
        if not told.exists():
            write_told(told, Told((), {}))
        heard = read_told(told)
        note(self.run, "told", round=self.number, sites=len(heard.sites))
        _log.info("%d of %d sites were told that the study is over", len(heard.sites), self.sites)

    @property
    def sites(self) -> int:
        """How many sites may connect."""
        return len(self.admitted)

    def _is_over(self) -> bool:
        return self.run.intake(self.number).exists() or time.time() >= self._deadline + GRACE

    @property
    def _deadline(self) -> float:
        return float(self.run.description().deadline)

    def _stored(self) -> list[str]:
        return stored_sites(self.run, self.number)

    def _admit(self) -> bool:
        """Make the allow-list that of `enrolled/` less the revoked; whether it has changed."""
        active = self.register.active(now=time.time())
        if active == self.admitted and self.run.enrolled.keys() == active.keys():
            return False
        admit(self.run, active)
        self.admitted = active
        note(self.run, "enrolled", sites=len(active))
        _log.info("sites enrolled: %d", len(active))
        if len(active) < self.current.study.quorum:
            _log.warning("the quorum is %d: enroll more sites", self.current.study.quorum)
        if not self.current.study.fits_a_request(len(active)):
            _log.warning("the global set of all sites may be too large to be sent to them")
        return True

    def _let_in(self, flower: Collector) -> None:
        """Let the nodes of those connect who are enrolled now, and no others."""
        if self._admit():
            flower.enrol(self.admitted)

    def _tell(self) -> None:
        stored, sites = len(self._stored()), len(self.admitted)
        progress = read_progress(self.run.round(self.number))
        online = len(progress.online) if progress else 0
        if (stored, online) != self.told:
            self.told = stored, online
            self.watch(Step("contributions", stored, sites))
            status = f"round {self.number}: {stored} of {sites} contributed, {online} online"
            _log.info("%s", status)
            notify(f"STATUS={status}")

    def _conclude(self) -> None:
        """Open, unite and score, if there are enough.

        Raises:
            QuorumMissed: there are not; nothing is opened.
        """
        intake, stored = self._intake(), len(self._stored())
        quorum, sites = self.current.study.quorum, len(self.admitted)
        if stored < quorum:
            codes = {**intake.missing, **intake.failed, **intake.refused}
            named = ", ".join(f"{site} {code}" for site, code in sorted(codes.items()))
            note(self.run, "quorum missed", round=self.number, stored=stored)
            raise QuorumMissed(
                f"{stored} of {sites} sites contributed, the quorum is {quorum}: "
                f"{named or 'nobody is enrolled'}",
                hint="the same command gives them more time; the codes are in docs/ref-errors.md",
            )
        note(self.run, "concluding", round=self.number, stored=stored)
        self.conclude(self.current, self.number)
        note(self.run, "concluded", round=self.number)

    def _intake(self) -> Intake:
        """What the ServerApp wrote, or what stands here where it could not."""
        path = self.run.intake(self.number)
        if not path.exists():
            stored = stored_digests(self.run, self.number)
            missing = {s: FederationError.code for s in self.admitted if s not in stored}
            write_intake(path, Intake(self.number, stored, {}, {}, missing))
        return read_intake(path)
