"""The server's part inside Flower: ask, store what comes sealed, wait for the parent.

It imports no torch and learns no key path. Its peer is the parent process, which opens,
aggregates and evaluates; they meet in the run directory alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp

from fedcondense.errors import ContributionRejected, FederationError
from fedcondense.exchange.keys import fingerprint_digits, signing_fingerprint
from fedcondense.flower.asking import ask_of_round, result_of_round
from fedcondense.flower.gathering import Gathering
from fedcondense.flower.messages import (
    CONTRIBUTE,
    HELLO,
    Ask,
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
    marks_path,
    newest_request,
    read_plan,
    write_intake,
    write_told,
)
from fedcondense.flower.telling import Telling
from fedcondense.server.intake import receive, stored_digests, stored_sites
from fedcondense.server.run_directory import RunDirectory

PAUSE = 0.2  # seconds between two looks for replies, nodes or done.json
GRACE = 120.0  # seconds beyond the deadline after which Flower drops a request
LONGEST_CONCLUSION = 7 * 24 * 3600.0  # seconds; a parent that died takes its children with it
_log = logging.getLogger(__name__)

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Collect the round that was asked for last, and wait until the parent concluded it.

    After the last round, tell the sites what the study gave.
    """
    run = RunDirectory(Path(str(context.run_config["run-directory"])))
    plan = read_plan(run.request(newest_request(run)))
    collection = Collection if plan.joining is None else Gathering
    collected = collection(grid, run, plan)
    if not run.intake(plan.round).exists():  # the parent removes it before it asks
        write_intake(run.intake(plan.round), collected.collect())
    if wait_for(run.done(plan.round), LONGEST_CONCLUSION) and plan.round == run.study().rounds:
        told = Telling(grid, result_of_round(run, plan.round), collected.present).tell()
        write_told(run.told(plan.round), told)


def wait_for(path: Path, seconds: float) -> bool:
    """Whether `path` exists within `seconds`."""
    until = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > until:
            return False
        time.sleep(PAUSE)
    return True


@dataclass
class Post:
    """Sends requests and hands over replies as they come, until the deadline (unix seconds)."""

    grid: Grid
    ask: Ask
    deadline: float

    def exchange(
        self, kind: str, nodes: list[int], *, at_once: int
    ) -> Iterator[tuple[int, Message | None]]:
        """Each asked node with its reply, or with None when it was just asked.

        Once a node's process has died, no further node is asked: Flower's simulation hands the
        dead process every request that follows, and each would be lost.
        """
        waiting, asked = list(nodes), dict[str, int]()
        while (waiting or asked) and time.time() < self.deadline:
            while waiting and len(asked) < at_once:
                node = waiting.pop(0)
                asked.update(self._push(kind, node))
                yield node, None
            for message in self.grid.pull_messages(list(asked)):
                answered = message.metadata.reply_to_message_id
                if answered not in asked:
                    continue
                if message.has_error():
                    waiting.clear()
                yield asked.pop(answered), message
            time.sleep(PAUSE)

    def _push(self, kind: str, node: int) -> dict[str, int]:
        seconds = max(self.deadline - time.time(), 0) + GRACE
        ask = self.ask.greeting if kind == HELLO else self.ask
        request = to_request(kind, node, ask, seconds)
        return dict.fromkeys(self.grid.push_messages([request]), node)


@dataclass
class Collection:
    """One Flower run's collection of sealed contributions, in a simulation."""

    grid: Grid
    run: RunDirectory
    plan: Plan
    refused: Codes = field(init=False)
    failed: Codes = field(init=False)
    asked: list[str] = field(init=False, default_factory=list)
    ready: dict[str, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.refused, self.failed = dict(self.plan.refused), dict(self.plan.failed)
        self._marks = Marks(marks_path(self.run.round(self.plan.round)))
        self._marks.first("began")
        deadline = float(self.run.description().deadline)
        self._post = Post(self.grid, ask_of_round(self.run, self.plan.round), deadline)

    def collect(self) -> Intake:
        """Greet all nodes, ask each site of the plan, store each contribution as it comes."""
        sites = self._greet(self._nodes())
        self.ready = {site: node for node, site in sites.items()}
        stored = stored_sites(self.run, self.plan.round)
        ready = {site: node for site, node in self.ready.items() if site not in stored}
        nodes = [ready[site] for site in self.plan.ask if site in ready]
        for node, message in self._post.exchange(CONTRIBUTE, nodes, at_once=self.plan.at_once):
            if message is None:
                self._marks.first("first_push")
                self.asked.append(sites[node])
            else:
                self._marks.last("last_reply")
                self._take(sites[node], message)
        return self._intake()

    def present(self) -> dict[str, int]:
        """The sites that were ready, with their nodes."""
        return self.ready

    def _nodes(self) -> list[int]:
        """All nodes, once there are as many as enrolled sites, or those there are at the end."""
        nodes: list[int] = []
        while len(nodes) < len(self.run.enrolled) and time.time() < self._post.deadline:
            time.sleep(PAUSE)
            nodes = sorted(self.grid.get_node_ids())
        return nodes

    def _greet(self, nodes: list[int]) -> dict[int, str]:
        """Node → site, of the sites that are ready; the others' codes are noted."""
        named: dict[int, str] = {}
        known = {_digits(keys.public): site for site, keys in self.run.enrolled.items()}
        for node, message in self._post.exchange(HELLO, nodes, at_once=max(1, len(nodes))):
            if message is None:
                continue
            self._marks.first("first_hello")
            reply = _reply_of(message)
            if reply is None or reply.signing_key not in known:
                _log.warning("a node did not name an enrolled site")
            elif reply.outcome is Outcome.READY:
                named[node] = known[reply.signing_key]
            else:
                self._note(known[reply.signing_key], reply)
        return named

    def _take(self, site: str, message: Message) -> None:
        """Store what `site` sealed, or note why there is nothing; a lost reply leaves no trace."""
        if message.has_error():
            _log.warning("%s: its process died, Flower error %d", site, message.error.code)
            return
        try:
            reply = read_reply(message)
            if reply.outcome is Outcome.SEALED:
                receive(self.run, reply.sealed, self.plan.round, sender=site)
            else:
                self._note(site, reply)
        except ContributionRejected as error:
            _log.warning("%s: contribution rejected: %s", site, error.reason)
            self.failed[site] = error.code

    def _note(self, site: str, reply: Reply) -> None:
        codes = self.refused if reply.outcome is Outcome.REFUSED else self.failed
        codes[site] = reply.code or FederationError.code

    def _intake(self) -> Intake:
        stored = stored_digests(self.run, self.plan.round)
        refused = {site: code for site, code in self.refused.items() if site not in stored}
        failed = {site: code for site, code in self.failed.items() if site not in stored}
        answered = {*stored, *refused, *failed}
        missing = {site: FederationError.code for site in self.run.enrolled if site not in answered}
        return Intake(self.plan.round, stored, refused, failed, missing, tuple(self.asked))


def _digits(public: bytes) -> str:
    return fingerprint_digits(signing_fingerprint(public))


def _reply_of(message: Message) -> Reply | None:
    """The reply, or None if there is none: a hello that cannot be read is as good as none."""
    try:
        return None if message.has_error() else read_reply(message)
    except ContributionRejected:
        return None
