"""A site's part inside Flower: check who asks, do it, answer with an outcome and a code.

No exception leaves this module, for Flower would send its text to the server. Several sites may
share one process one after the other, so the module holds no state.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedcondense.config.scenario import ReleaseMode
from fedcondense.config.site import SiteConfig, load_site
from fedcondense.config.study import Study, load_study
from fedcondense.errors import (
    DescriptionRejected,
    FedcondenseError,
    InternalError,
    ReleaseRefused,
)
from fedcondense.exchange.keys import SigningKey, fingerprint_digits
from fedcondense.exchange.round_result import Expected, Given, read_given, read_result
from fedcondense.exchange.run_description import Request, verify_description
from fedcondense.flower.home import Home, home_of, keep_trace
from fedcondense.flower.messages import RESULT, Ask, Outcome, Reply, read_request, to_reply
from fedcondense.site.journal import Journal
from fedcondense.site.last_request import LastRequest, basis_of, note_request
from fedcondense.site.limits import check_deadline, check_message, check_study, count_request
from fedcondense.site.payment import demand_payable

app = ClientApp()


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Answer `ready`, or the code of what would keep this site from contributing."""
    return _answer(message, context, _ready)


@app.train("contribute")
def contribute(message: Message, context: Context) -> Message:
    """Answer with this site's sealed contribution, or with a code."""
    return _answer(message, context, _sealed)


@app.query("result")
def result(message: Message, context: Context) -> Message:
    """Keep what the study gave, and answer `ready`, or a code."""
    return _answer(message, context, _told)


@dataclass(frozen=True)
class Place:
    """Where a site stands: its settings and study, whether the gate is enforced, and of what kind.

    `deployed` is a hospital's own machine; the others are played in a simulation.
    """

    site: SiteConfig
    study: Study
    mode: ReleaseMode
    deployed: bool

    def verify(self, ask: Ask) -> Request:
        """The request, if it is one that this site agreed to.

        Raises:
            DescriptionRejected: it is not.
        """
        if self.study.digest != self.site.study_digest:
            raise DescriptionRejected(
                "the study file is not the one that site.toml pins",
                hint="compare study file and study_digest with the server operator",
            )
        pinned = self.site.run_signing_fingerprint
        return Request(
            verify_description(ask.description, pinned=pinned, study=self.study), ask.round
        )

    def told(self, ask: Ask, request: Request) -> None:
        """Keep the scores of a round whose set was too large to be sent.

        Raises:
            DescriptionRejected: the pinned key did not sign them for this run.
        """
        result = read_result(ask.result, self._expected(request, request.round))
        from fedcondense.site.global_set import keep_result  # loads torch

        keep_result(self.site.state, result, ask.result)

    def given(self, ask: Ask, request: Request, round: int) -> Given:
        """What `round` gave, if it is what the pinned key signed for this run; kept at the site.

        Raises:
            DescriptionRejected: it is not.
        """
        given = read_given(ask.result, ask.data, self._expected(request, round))
        from fedcondense.site.global_set import keep_global  # loads torch

        keep_global(self.site.state, given)
        return given

    def _expected(self, request: Request, round: int) -> Expected:
        pinned, run = self.site.run_signing_fingerprint, request.description.run
        return Expected(self.study, pinned, round, run)


@dataclass
class Visit:
    """What is known of one request so far."""

    message: Message
    home: Home | None = None
    site: SiteConfig | None = None
    ask: Ask | None = None
    signing_key: str = ""

    @property
    def kind(self) -> str:
        """The type of the message."""
        return self.message.metadata.message_type

    def check_deadline(self, request: Request) -> None:
        """Refuse at a hospital to contribute to a run that is over; its result may come later.

        Raises:
            DescriptionRejected: it is.
        """
        if self.home is not None and self.home.deployed and self.kind != RESULT:
            check_deadline(request.description.deadline, time.time())

    def note(self, reply: Reply) -> None:
        """Keep at a hospital what was asked and answered."""
        if self.site is None or self.home is None or not self.home.deployed:
            return
        number, version = (self.ask.round, self.ask.version) if self.ask else (0, "")
        now = int(time.time())
        outcome, basis = str(reply.outcome), basis_of(self.site)
        last = LastRequest(now, self.kind, number, outcome, reply.code, version, basis)
        note_request(self.site.state, last)


def _ready(place: Place, request: Request, ask: Ask) -> Reply:
    """A hospital that cannot pay says so now: else it would count for the quorum."""
    if place.deployed:
        demand_payable(place.site, place.study, request.round)
    return Reply(Outcome.READY)


def _told(place: Place, request: Request, ask: Ask) -> Reply:
    """A study is over with its last round; nothing else ends it for a site."""
    if request.round != place.study.rounds:
        raise DescriptionRejected(
            f"the server tells the result of round {request.round} of {place.study.rounds}",
            hint="compare the study digest with the server operator",
        )
    if ask.data:
        place.given(ask, request, request.round)
    else:
        place.told(ask, request)
    return Reply(Outcome.READY)


def _sealed(place: Place, request: Request, ask: Ask) -> Reply:
    count_request(place.site, place.study, request.round)
    if request.round > 1:
        request = replace(request, given=place.given(ask, request, request.round - 1))
    import torch

    from fedcondense.site.contribute import contribute as contribute_at_site
    from fedcondense.site.state import RoundState

    site, study = place.site, place.study
    torch.set_num_threads(site.threads)  # for each request: sites share processes
    torch.backends.cudnn.allow_tf32 = False  # full float32: less has to be justified by a figure
    journal = Journal(RoundState(site.state, study.digest, request.round).journal)
    sealed = contribute_at_site(site, study, request, mode=place.mode, watch=journal)
    return Reply(Outcome.SEALED, sealed=sealed)


def _answer(
    message: Message, context: Context, act: Callable[[Place, Request, Ask], Reply]
) -> Message:
    """The reply to `message`; whatever goes wrong becomes an outcome and a code."""
    visit = Visit(message)
    try:
        visit.home = home = home_of(context)
        visit.site = site = load_site(home.settings)
        check_message(site.limits, visit.kind, _size_of(message))
        visit.ask = read_request(message)
        visit.signing_key = fingerprint_digits(SigningKey.load(site.signing_key).fingerprint)
        place = Place(site, load_study(site.study), home.mode, home.deployed)
        request = place.verify(visit.ask)
        visit.check_deadline(request)
        check_study(site.limits, place.study, request.round)
        reply = act(place, request, visit.ask)
    except Exception as error:  # noqa: BLE001  (Flower sends the text of what passes here)
        keep_trace(error, visit.home, visit.site.state if visit.site else None)
        reply = _reply_to_failure(error)
    visit.note(reply)
    return to_reply(replace(reply, signing_key=visit.signing_key), message)


def _size_of(message: Message) -> int:
    """Bytes of what a message carries."""
    if not message.has_content():
        return 0
    return sum(record.count_bytes() for record in message.content.values())


def _reply_to_failure(error: Exception) -> Reply:
    if isinstance(error, FedcondenseError) and error.exit_code == ReleaseRefused.exit_code:
        return Reply(Outcome.REFUSED, error.code)
    code = error.code if isinstance(error, FedcondenseError) else InternalError.code
    return Reply(Outcome.FAILED, code)
