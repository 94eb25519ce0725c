"""The last thing inside Flower: tell the sites what the study gave, and wait for their word.

A site that is not there is not waited for long: what it contributed counts all the same.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from flwr.app import Message
from flwr.serverapp import Grid

from fedcondense.errors import ContributionRejected, FederationError, LimitExceeded
from fedcondense.flower.messages import RESULT, Ask, Outcome, read_reply, to_request
from fedcondense.flower.round_files import Codes, Told, seconds_to_tell

PAUSE = 1.0  # seconds between two looks
MOST_TRIES = 2  # of one site
AT_ONCE = 8  # sites: each is sent the whole global set
_log = logging.getLogger(__name__)


@dataclass
class Telling:
    """Sends one result to every site that is online.

    `nodes` says which node is which site now; `ask` carries the result.
    """

    grid: Grid
    ask: Ask
    nodes: Callable[[], dict[str, int]]
    waiting: dict[str, str] = field(init=False, default_factory=dict)  # message → site
    tries: Counter[str] = field(init=False, default_factory=Counter)
    told: list[str] = field(init=False, default_factory=list)
    codes: Codes = field(init=False, default_factory=dict)

    def tell(self) -> Told:
        """Tell everybody who can be told; who was, and which codes others gave."""
        until = time.monotonic() + seconds_to_tell(len(self.nodes()), len(self.ask.data))
        while time.monotonic() < until and not self._is_over():
            self._push(until - time.monotonic())
            time.sleep(PAUSE)
            for message in self.grid.pull_messages(list(self.waiting)):
                site = self.waiting.pop(message.metadata.reply_to_message_id, None)
                if site is not None:
                    self._take(site, message)
        return Told(tuple(sorted(self.told)), self.codes)

    def _is_over(self) -> bool:
        return not self.waiting and not self._left()

    def _left(self) -> list[str]:
        return [
            site for site in self.nodes() if site not in self.told and self.tries[site] < MOST_TRIES
        ]

    def _push(self, seconds: float) -> None:
        online, asked = set(self.grid.get_node_ids()), set(self.waiting.values())
        nodes = self.nodes()
        for site in self._left():
            if site in asked or nodes[site] not in online or len(self.waiting) >= AT_ONCE:
                continue
            self.tries[site] += 1
            request = to_request(RESULT, nodes[site], self._ask(site), seconds)
            self.waiting.update(dict.fromkeys(self.grid.push_messages([request]), site))

    def _ask(self, site: str) -> Ask:
        """The result; at the second try without its set, where that is more than the site takes."""
        is_too_large = self.codes.get(site) == LimitExceeded.code
        return replace(self.ask, data=b"") if is_too_large else self.ask

    def _take(self, site: str, message: Message) -> None:
        code = _code_of(message)
        if code:
            _log.warning("%s: did not take what the study gave: %s", site, code)
            self.codes[site] = code
        else:
            self.told.append(site)
            self.codes.pop(site, None)


def _code_of(message: Message) -> str:
    """Why a site did not take it; empty if it did."""
    if message.has_error():
        return FederationError.code
    try:
        reply = read_reply(message)
    except ContributionRejected as error:
        return error.code
    return "" if reply.outcome is Outcome.READY else reply.code or FederationError.code
