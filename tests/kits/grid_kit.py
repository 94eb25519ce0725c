"""A Flower Grid that plays a script: sites come, answer, die and go, as a test says."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

from federation_kit import Repetition
from flwr.app import Error, Message
from flwr.serverapp import Grid

from fedcondense.exchange.keys import fingerprint_digits
from fedcondense.flower.messages import CONTRIBUTE, Outcome, Reply, to_reply
from fedcondense.flower.round_files import write_nodes

Script = Callable[[Message], Message | None]


class MessageGrid(Grid):
    """What of a Grid our apps never use, so that a scripted one says only what it plays."""

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


class DeployedGrid(MessageGrid):
    """Each site of a repetition is a node of its own number; all are online until told otherwise.

    A script answers at once or, with None, never. Scripts of a site are played one after another,
    the last one for ever.
    """

    def __init__(self, repetition: Repetition) -> None:
        self.repetition = repetition
        self.nodes = {name: 101 + i for i, name in enumerate(repetition.names)}
        self.online = set(repetition.names)
        self.scripts: dict[tuple[str, str], list[Script]] = {}
        self.pushed: list[tuple[str, str]] = []
        self.pulled: list[list[str]] = []
        self.looks = 0
        self.on_look: Callable[[int], None] = lambda look: None
        self._waiting: dict[str, Message] = {}
        self._numbers = itertools.count(1)
        write_nodes(repetition.run, self.nodes)

    def says(self, site: str, kind: str, *answers: Script) -> None:
        self.scripts[site, kind] = list(answers)

    def asked(self, kind: str = CONTRIBUTE) -> list[str]:
        return [site for site, asked in self.pushed if asked == kind]

    def get_node_ids(self) -> Iterable[int]:
        self.looks += 1
        self.on_look(self.looks)
        return [self.nodes[site] for site in self.online]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        for message in messages:
            number = f"message-{next(self._numbers)}"
            message.metadata.__dict__["_message_id"] = number
            [site] = [s for s, n in self.nodes.items() if n == message.metadata.dst_node_id]
            kind = message.metadata.message_type
            self.pushed.append((site, kind))
            answer = self._script(site, kind)(message)
            if answer is not None:
                self._waiting[number] = answer
            yield number

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        self.pulled.append(list(message_ids))
        return [self._waiting.pop(number) for number in self.pulled[-1] if number in self._waiting]

    def _script(self, site: str, kind: str) -> Script:
        scripts = self.scripts.get((site, kind))
        if not scripts:
            return self._well(site)
        return scripts.pop(0) if len(scripts) > 1 else scripts[0]

    def _well(self, site: str) -> Script:
        key = fingerprint_digits(self.repetition.keys[site].fingerprint)

        def answer(message: Message) -> Message:
            if message.metadata.message_type != CONTRIBUTE:
                return to_reply(Reply(Outcome.READY, signing_key=key), message)
            sealed = self.repetition.sealed(site)
            return to_reply(Reply(Outcome.SEALED, "", key, sealed), message)

        return answer


def replying(outcome: Outcome, code: str = "", signing_key: str = "") -> Script:
    return lambda message: to_reply(Reply(outcome, code, signing_key), message)


def losing(code: int) -> Script:
    """What Flower says in the place of a site that it lost."""

    def answer(message: Message) -> Message:
        return Message(Error(code=code, reason="a path of the site"), reply_to=message)

    return answer


def never(message: Message) -> None:
    return None
