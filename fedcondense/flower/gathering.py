"""A deployed server's round inside Flower: greet, wait for a quorum, ask, store; sites come and go.

Which node is which site is the parent's word, who registered the nodes by their keys. A site is
greeted when it is first online, and asked once a quorum is ready or the joining time is over. The
round ends when every enrolled site has given its answer, or at the deadline.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.serverapp import Grid

from fedcondense.errors import (
    ApprovalMissing,
    ContributionRejected,
    EnrolmentRejected,
    FederationError,
)
from fedcondense.exchange.keys import fingerprint_digits, signing_fingerprint
from fedcondense.flower.asking import ask_of_round
from fedcondense.flower.messages import (
    CONTRIBUTE,
    HELLO,
    Outcome,
    Reply,
    read_reply,
    to_request,
)
from fedcondense.flower.round_files import (
    Codes,
    Intake,
    Marks,
    Plan,
    Progress,
    Stage,
    marks_path,
    read_nodes,
    write_progress,
)
from fedcondense.server.intake import receive, rejected_sites, stored_digests, stored_sites
from fedcondense.server.run_directory import RunDirectory

PAUSE = 1.0  # seconds between two looks
GRACE = 120.0  # seconds beyond the deadline after which Flower drops a request
GREET_AGAIN = 30.0  # seconds; what kept a site from being ready may be put right meanwhile
ASK_AGAIN = 20.0  # seconds after its process died
# seconds; a data officer is a person, and a site answers only so many requests
APPROVAL_AGAIN, LONGEST_APPROVAL = 600.0, 4 * 3600.0
MOST_CRASHES = 2  # of a site's process in one Flower run
# Flower's codes for a request or an answer that it has no more, which an upload cut for longer than
# its push session leaves behind, and for a site that went offline: it may come back
AWAY = {3, 4, 5}
FINAL = {Stage.STORED, Stage.REFUSED, Stage.FAILED, Stage.LOST}
_log = logging.getLogger(__name__)


@dataclass
class Contact:
    """How far it came with one site; `message` is the request that is not yet answered.

    `final` says whether nothing more is expected of it; before `not_before` it is left alone.
    """

    stage: Stage = Stage.ABSENT
    code: str = ""
    final: bool = False
    message: str = ""
    kind: str = ""
    crashes: int = 0
    unapproved: int = 0
    not_before: float = 0.0
    was_asked: bool = False

    def settle(self, stage: Stage, code: str = "") -> None:
        """Nothing more is expected of this site."""
        self.stage, self.code, self.final = stage, code, True

    def again(self, stage: Stage, code: str, seconds: float) -> None:
        """Turn to this site again after so many seconds."""
        self.stage, self.code, self.not_before = stage, code, time.time() + seconds


@dataclass
class Gathering:
    """One Flower run's collection of sealed contributions from deployed sites."""

    grid: Grid
    run: RunDirectory
    plan: Plan
    contacts: dict[str, Contact] = field(init=False, default_factory=dict)
    nodes: dict[str, int] = field(init=False, default_factory=dict)
    online: set[int] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        description = self.run.description()
        self._deadline, self._quorum = float(description.deadline), description.quorum
        self._ask = ask_of_round(self.run, self.plan.round)
        self._marks = Marks(marks_path(self.run.round(self.plan.round)))
        self._marks.first("began")
        self._rejected = rejected_sites(self.run, self.plan.round)
        self._told: Progress | None = None
        self._asking = False

    def collect(self) -> Intake:
        """Turn to all enrolled sites until each has answered for good, or time is up."""
        while True:
            self._look()
            self._take_replies()
            if not self._is_over():
                self._turn_to_sites()
            self._tell()
            if self._is_over():
                return self._intake()
            time.sleep(PAUSE)

    def present(self) -> dict[str, int]:
        """The enrolled sites with their nodes, as the parent says now."""
        enrolled = self.run.enrolled
        return {site: node for site, node in read_nodes(self.run).items() if site in enrolled}

    def _is_over(self) -> bool:
        answered = all(contact.final for contact in self.contacts.values())
        return (answered and bool(self.contacts)) or time.time() >= self._deadline

    def _look(self) -> None:
        """Who is enrolled, connected, and has a contribution here; all of it may have changed."""
        enrolled, stored = self.run.enrolled, stored_sites(self.run, self.plan.round)
        self.contacts = {site: self._contact(site, stored) for site in enrolled}
        self.nodes = self.present()
        self.online = set(self.grid.get_node_ids())
        for site in stored:
            self.contacts[site].settle(Stage.STORED)

    def _contact(self, site: str, stored: list[str]) -> Contact:
        """That so far; a new one where a contribution was put aside: the site has other keys."""
        contact = self.contacts.get(site, Contact())
        is_aside = contact.stage is Stage.STORED and site not in stored
        return Contact() if is_aside else contact

    def _turn_to_sites(self) -> None:
        """Greet who is new; ask who is ready, once there are enough of them."""
        ready = sum(c.stage in (Stage.READY, Stage.ASKED, Stage.STORED) for c in self._countable())
        joining = self.plan.joining or 0.0
        self._asking = self._asking or ready >= self._quorum or time.time() >= joining
        for site, contact in self._idle():
            if contact.stage is not Stage.READY:
                self._push(site, contact, HELLO)
                contact.stage = Stage.GREETED
            elif self._asking:
                self._push(site, contact, CONTRIBUTE)
                contact.stage, contact.was_asked = Stage.ASKED, True
                self._marks.first("first_push")

    def _countable(self) -> list[Contact]:
        """All whose contribution stands or may come, and was not refused when it was opened."""
        return [of for site, of in self.contacts.items() if site not in self._rejected]

    def _idle(self) -> Iterator[tuple[str, Contact]]:
        """Sites that are online and whose turn it is."""
        now = time.time()
        for site, contact in self.contacts.items():
            idle = not contact.final and not contact.message and now >= contact.not_before
            if idle and self.nodes.get(site) in self.online:
                yield site, contact

    def _push(self, site: str, contact: Contact, kind: str) -> None:
        seconds = max(self._deadline - time.time(), 0.0) + GRACE
        ask = self._ask.greeting if kind == HELLO else self._ask
        request = to_request(kind, self.nodes[site], ask, seconds)
        for number in self.grid.push_messages([request]):
            contact.message, contact.kind = number, kind

    def _take_replies(self) -> None:
        waiting = {contact.message: site for site, contact in self.contacts.items()}
        waiting.pop("", None)
        for number, site in waiting.items():
            # one at a time: each may hold 64 MiB, and all sites together are not held at once
            for message in self.grid.pull_messages([number]):
                if message.metadata.reply_to_message_id == number:
                    self._take(site, self.contacts[site], message)

    def _take(self, site: str, contact: Contact, message: Message) -> None:
        contact.message = ""
        if contact.kind == HELLO:
            self._take_hello(site, contact, message)
        else:
            self._take_contribution(site, contact, message)

    def _take_hello(self, site: str, contact: Contact, message: Message) -> None:
        reply = None if message.has_error() else self._reply(site, message)
        if reply is None:
            contact.again(Stage.ABSENT, FederationError.code, ASK_AGAIN)
            return
        self._marks.first("first_hello")
        if reply.outcome is Outcome.READY:
            contact.again(Stage.READY, "", 0.0)
        elif reply.outcome is Outcome.REFUSED:  # as of a contribution: nobody waits for it
            contact.settle(Stage.REFUSED, reply.code or FederationError.code)
        else:
            contact.again(Stage.FAILED, reply.code or FederationError.code, GREET_AGAIN)

    def _take_contribution(self, site: str, contact: Contact, message: Message) -> None:
        if message.has_error():
            self._take_loss(site, contact, message.error.code)
            return
        self._marks.last("last_reply")
        reply = self._reply(site, message)
        if reply is None:
            contact.settle(Stage.FAILED, EnrolmentRejected.code)
        elif reply.outcome is Outcome.SEALED:
            self._store(site, contact, reply.sealed)
        elif reply.code == ApprovalMissing.code:
            pause = min(APPROVAL_AGAIN * 2**contact.unapproved, LONGEST_APPROVAL)
            contact.unapproved += 1
            contact.again(Stage.READY, reply.code, pause)
        else:
            stage = Stage.REFUSED if reply.outcome is Outcome.REFUSED else Stage.FAILED
            contact.settle(stage, reply.code or FederationError.code)

    def _take_loss(self, site: str, contact: Contact, code: int) -> None:
        """A site that went away is asked when it is back, one whose process dies not for ever."""
        _log.warning("%s: lost, Flower error %d", site, code)
        contact.crashes += code not in AWAY
        if contact.crashes < MOST_CRASHES:
            contact.again(Stage.READY, FederationError.code, ASK_AGAIN)
        else:
            contact.settle(Stage.LOST, FederationError.code)

    def _store(self, site: str, contact: Contact, sealed: bytes) -> None:
        try:
            limits = self.plan.limits
            receive(self.run, sealed, self.plan.round, sender=site, limits=limits)
        except ContributionRejected as error:
            _log.warning("%s: contribution rejected: %s", site, error.reason)
            contact.settle(Stage.FAILED, error.code)
            return
        self._marks.first("first_stored")
        contact.settle(Stage.STORED)

    def _reply(self, site: str, message: Message) -> Reply | None:
        """What the site's own node answered in the name of the site's own key; else None."""
        keys = self.run.enrolled.get(site)
        if keys is None or message.metadata.src_node_id != self.nodes.get(site):
            return None
        try:
            reply = read_reply(message)
        except ContributionRejected as error:
            _log.warning("%s: no reply of this protocol: %s", site, error.reason)
            return Reply(Outcome.FAILED, error.code)
        if reply.signing_key in (fingerprint_digits(signing_fingerprint(keys.public)), ""):
            return reply
        _log.warning("%s: it signs with a key that is not enrolled", site)
        return Reply(Outcome.FAILED, EnrolmentRejected.code)

    def _tell(self) -> None:
        stages = {site: contact.stage for site, contact in self.contacts.items()}
        codes = {site: contact.code for site, contact in self.contacts.items() if contact.code}
        online = tuple(site for site, node in self.nodes.items() if node in self.online)
        progress = Progress(stages, codes, online)
        if progress != self._told:
            write_progress(self.run.round(self.plan.round), progress)
            self._told = progress

    def _intake(self) -> Intake:
        stored = stored_digests(self.run, self.plan.round)
        refused, failed = self._codes(Stage.REFUSED), self._codes(Stage.FAILED)
        answered = {*stored, *refused, *failed}
        missing = {site: FederationError.code for site in self.contacts if site not in answered}
        asked = tuple(site for site, contact in self.contacts.items() if contact.was_asked)
        return Intake(self.plan.round, stored, refused, failed, missing, asked)

    def _codes(self, stage: Stage) -> Codes:
        return {site: c.code for site, c in self.contacts.items() if c.stage is stage}
