"""Bytes ↔ Flower messages: what may stand in one, and nothing else.

A request is one ConfigRecord `request` and, where it brings what a round gave, one ArrayRecord
`global` with one uint8 array; a reply is one ConfigRecord `reply` and, where the site contributed,
one ArrayRecord `sealed` of the same kind. A reply says nothing about data, and no
exception's text travels in it.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NoReturn

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

import fedcondense
from fedcondense.config.study import LARGEST_CONTRIBUTION
from fedcondense.errors import ContributionRejected, DescriptionRejected
from fedcondense.exchange.rejection import Reason, demand
from fedcondense.exchange.run_description import LARGEST_DESCRIPTION
from fedcondense.files.storage import sha256

PROTOCOL = 1
HELLO = "query.hello"
CONTRIBUTE = "train.contribute"
RESULT = "query.result"
LARGEST_ROUND = 1_000
_VERSION = r"[0-9A-Za-z.+-]{1,40}"
_NUMPY = "numpy.ndarray"  # Flower's name for an array in npy form
_REQUEST = {"protocol": int, "version": str, "description": bytes, "round": int}
_WITH_RESULT = {**_REQUEST, "result": bytes}
_REPLY = {
    "protocol": int,
    "version": str,
    "outcome": str,
    "code": str,
    "signing_key": str,
    "length": int,
    "sha256": str,
}


class Outcome(StrEnum):
    """What became of a request at a site."""

    READY = "ready"
    SEALED = "sealed"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True)
class Ask:
    """What the server asks: the signed run description as it stands in run.json, and the round.

    `version` is the server's own of fedcondense. `result` is the signed result of a round and
    `data` its global set, as `SharedSet.data` has it: of the round before, where a contribution to
    a later round is asked for, and of this one, where its result is told. Else both are empty. A
    result that is told comes without its set where that is larger than what a site takes in.
    """

    description: bytes
    round: int
    version: str = fedcondense.__version__
    result: bytes = field(default=b"", repr=False)
    data: bytes = field(default=b"", repr=False)

    @property
    def greeting(self) -> Ask:
        """The same without what a round gave: whoever is greeted need not have it yet."""
        return Ask(self.description, self.round, self.version)


@dataclass(frozen=True)
class Reply:
    """What a site answers.

    `code` is an FC code where the outcome is `refused` or `failed`, else empty. `signing_key` holds
    the 64 digits of the fingerprint of the site's signing key, by which the server names the site;
    empty where the site failed before it knew its key. It is a claim: what is stored is named by
    the contribution's own signature.
    """

    outcome: Outcome
    code: str = ""
    signing_key: str = ""
    sealed: bytes = b""


def to_request(kind: str, node: int, ask: Ask, seconds: float) -> Message:
    """The message of type `kind` to one node, not delivered after `seconds`."""
    record = ConfigRecord(
        {
            "protocol": PROTOCOL,
            "version": ask.version,
            "description": ask.description,
            "round": ask.round,
        }
    )
    if ask.result:  # an empty value could not be counted by the reader
        record["result"] = ask.result
    content = RecordDict({"request": record})
    if ask.data:
        content["global"] = _packed("global", ask.data)
    return Message(content, node, kind, ttl=seconds, group_id=str(ask.round))


def read_request(message: Message) -> Ask:
    """What the server asks, at the site; the description is not yet verified.

    Raises:
        DescriptionRejected: the message is no request of this protocol.
    """
    content = message.content if message.has_content() else {}
    records = set(content)
    if records - {"global"} != {"request"} or not _is_request(content["request"]):
        _reject_request("it is malformed")
    values: Mapping[str, Any] = content["request"]
    result = values.get("result", b"")
    has_set = "global" in records
    if bool(result) is not (has_set or _is_told_alone(message, result)):
        _reject_request("it is malformed")
    if values["protocol"] != PROTOCOL:
        _reject_request("it is of another protocol")
    if max(len(values["description"]), len(result)) > LARGEST_DESCRIPTION:
        _reject_request("it is too long")
    if not 1 <= values["round"] <= LARGEST_ROUND or not re.fullmatch(_VERSION, values["version"]):
        _reject_request("it is malformed")
    data = _read_global(content["global"]) if has_set else b""
    return Ask(values["description"], values["round"], values["version"], result, data)


def _is_request(record: object) -> bool:
    return _has_fields(record, _REQUEST) or _has_fields(record, _WITH_RESULT)


def _is_told_alone(message: Message, result: bytes) -> bool:
    """Whether it is a result whose set was too large to be sent: nothing begins with that one."""
    return bool(result) and message.metadata.message_type == RESULT


def _read_global(record: Any) -> bytes:
    try:
        return _unpacked("global", record)
    except ContributionRejected:
        _reject_request("its array is not one row of bytes")


def to_reply(reply: Reply, request: Message) -> Message:
    """The answer to `request`."""
    record = ConfigRecord(
        {
            "protocol": PROTOCOL,
            "version": fedcondense.__version__,
            "outcome": str(reply.outcome),
            "code": reply.code,
            "signing_key": reply.signing_key,
            "length": len(reply.sealed),
            "sha256": sha256(reply.sealed),
        }
    )
    content = RecordDict({"reply": record})
    if reply.outcome is Outcome.SEALED:
        content["sealed"] = _packed("sealed", reply.sealed)
    return Message(content, reply_to=request)


def read_reply(message: Message) -> Reply:
    """What a site answered, at the server; every field is checked, the contribution stays sealed.

    Raises:
        ContributionRejected: the message is no reply of this protocol, its array is not one
            uint8 row of at most 64 MiB, or it does not have the stated length and digest.
    """
    content = message.content if message.has_content() else {}
    records = set(content)
    demand("reply" in records and _has_fields(content["reply"], _REPLY), Reason.CONTENTS)
    values: Mapping[str, Any] = content["reply"]
    demand(values["protocol"] == PROTOCOL, Reason.VERSION)
    demand(re.fullmatch(_VERSION, values["version"]), Reason.VERSION)
    demand(values["outcome"] in set(Outcome), Reason.CONTENTS)
    demand(re.fullmatch(r"([0-9a-f]{64})?", values["signing_key"]), Reason.KEY)
    outcome = Outcome(values["outcome"])
    has_code = outcome in (Outcome.REFUSED, Outcome.FAILED)
    demand(re.fullmatch(r"FC\d{3}" if has_code else "", values["code"]), Reason.CONTENTS)
    expected = {"reply", "sealed"} if outcome is Outcome.SEALED else {"reply"}
    demand(records == expected, Reason.CONTENTS)
    sealed = _unpacked("sealed", content["sealed"]) if outcome is Outcome.SEALED else b""
    demand(values["length"] == len(sealed), Reason.LENGTH)
    demand(values["sha256"] == sha256(sealed), Reason.DIGEST)
    return Reply(outcome, values["code"], values["signing_key"], sealed)


def _packed(name: str, data: bytes) -> ArrayRecord:
    """Bytes as one uint8 row: a ConfigRecord takes twice the time and memory."""
    return ArrayRecord({name: Array(np.frombuffer(data, dtype=np.uint8))})


def _unpacked(name: str, record: Any) -> bytes:
    """The bytes of the array, cut out of its npy form: no array reader sees received bytes."""
    demand(isinstance(record, ArrayRecord) and set(record) == {name}, Reason.CONTENTS)
    array = record[name]
    demand(array.dtype == "uint8" and array.stype == _NUMPY, Reason.DTYPE)
    demand(len(array.shape) == 1 and type(array.shape[0]) is int, Reason.SHAPE)
    (length,) = array.shape
    demand(1 <= length <= LARGEST_CONTRIBUTION, Reason.LENGTH)
    header = _npy_header(length)
    demand(len(array.data) == len(header) + length, Reason.LENGTH)
    demand(array.data.startswith(header), Reason.DTYPE)
    return bytes(array.data[len(header) :])


@functools.lru_cache(maxsize=8)
def _npy_header(length: int) -> bytes:
    """What numpy writes before the bytes of one uint8 row."""
    file = io.BytesIO()
    fields = {"descr": "|u1", "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, fields)
    return file.getvalue()


def _has_fields(record: object, fields: Mapping[str, type]) -> bool:
    """Whether a record has exactly these fields; a bool is no int here."""
    return (
        isinstance(record, ConfigRecord)
        and set(record) == set(fields)
        and all(type(record[name]) is kind for name, kind in fields.items())
    )


def _reject_request(why: str) -> NoReturn:
    raise DescriptionRejected(
        f"the server's request is refused: {why}",
        hint="site and server need the same version of fedcondense",
    )
