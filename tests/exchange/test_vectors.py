"""The vectors of tests/vectors: fixed keys and bytes that any implementation can run.

They are not edited, only added; docs/ref-contribution-format.md tells how to read them and of the
one time that some were written anew.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from wire_kit import frame

from fedcondense.config.privacy import Privacy
from fedcondense.errors import ContributionRejected, DescriptionRejected
from fedcondense.exchange.approval import check_approvals
from fedcondense.exchange.contents import decode_body
from fedcondense.exchange.keys import OpeningKey, SigningKey, fingerprint, signing_fingerprint
from fedcondense.exchange.rejection import Reason
from fedcondense.exchange.run_description import RunDescription, read_description
from fedcondense.exchange.sealing import (
    Expectation,
    binding,
    open_sealed,
    signed_message,
    verify,
)
from fedcondense.exchange.terms import Terms

FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS = sorted(path for path in FOLDER.glob("*.json") if not path.stem.startswith("context"))
OF_A_SERVERS_STATE = {Reason.ATTEMPTS, Reason.FULL, Reason.REPLAYED, Reason.DUPLICATE}
PRIVACY: TypeAdapter[Privacy] = TypeAdapter(Privacy)

Vector = dict[str, Any]


def expectation_of(context: Vector) -> Expectation:
    plain = {"soft_labels": False, "learns_rate": False}  # what a context without them means
    values = plain | context["terms"]
    privacy = PRIVACY.validate_json(json.dumps(values.get("privacy", {"mode": "none"})))
    terms = Terms(**values | {"classes": tuple(values["classes"]), "privacy": privacy})
    return Expectation(
        terms=terms,
        description=RunDescription(
            terms.study_digest, context["run"], context["recipient"], 2, 0, "release"
        ),
        round=context["round"],
        purposes=frozenset(context["purposes"]),
        enrolled={site: bytes.fromhex(key) for site, key in context["enrolled"].items()},
        officers={site: bytes.fromhex(key) for site, key in context.get("officers", {}).items()},
    )


def edited(data: bytes, vector: Vector) -> bytes:
    changed = bytearray(data)
    for at, replacement in vector.get("edits", []):
        new = bytes.fromhex(replacement)
        at %= len(changed)
        changed[at : at + len(new)] = new
    changed = changed[: len(changed) - vector.get("cut", 0)]
    return bytes(changed) + bytes.fromhex(vector.get("append", ""))


def run_fingerprint(vector: Vector, context: Vector) -> None:
    shown = fingerprint(vector["suite"], bytes.fromhex(vector["public"]))
    assert shown == vector["shown"]


def run_frame(vector: Vector, context: Vector) -> None:
    manifest, ciphertext = vector["manifest"].encode(), bytes(vector["ciphertext_zeros"])
    assert binding(manifest).hex() == vector["info"]
    assert signed_message(manifest, ciphertext).hex() == vector["message"]
    blob = frame(manifest, ciphertext, bytes.fromhex(vector["signature"]))
    manifest_read = verify(edited(blob, vector), expectation_of(context))
    signer = SigningKey(bytes.fromhex(context["signing_keys"][manifest_read.site]))
    assert signer.sign(bytes.fromhex(vector["message"])).hex() == vector["signature"]


def run_blob(vector: Vector, context: Vector) -> None:
    key = OpeningKey(bytes.fromhex(context["opening_key"]))
    assert key.recipient.raw.hex() == context["recipient"]
    opened = open_sealed(base64.b64decode(vector["blob"]), expectation_of(context), key)
    assert opened.payload.sha256 == vector["payload_sha256"]


def run_body(vector: Vector, context: Vector) -> None:
    expected, contents = expectation_of(context), vector["contents"].encode()
    terms = expected.terms
    body = len(contents).to_bytes(4, "little") + contents + bytes.fromhex(vector["arrays"])
    padded = edited(body.ljust(terms.body_bytes, b"\0"), vector)
    read = decode_body(padded, vector["purpose"], terms, round=context["round"])
    payload = read.payload
    if "site" in vector:
        check_approvals(read.approvals, payload.sha256, expected.officers.get(vector["site"]))
    assert payload.pixels + payload.labels + payload.soft == bytes.fromhex(vector["arrays"])
    assert payload.student_rate == json.loads(contents)["student_lr"]


def run_description(vector: Vector, context: Vector) -> None:
    description, public = read_description(vector["description"].encode())
    assert description.recipient == context["recipient"]
    assert signing_fingerprint(public) == vector["signer"]


RUNNERS = {
    "fingerprint": run_fingerprint,
    "frame": run_frame,
    "blob": run_blob,
    "body": run_body,
    "description": run_description,
}


def outcome_of(vector: Vector, context: Vector) -> str:
    try:
        RUNNERS[vector["kind"]](vector, context)
    except ContributionRejected as rejected:
        return rejected.reason
    except DescriptionRejected:
        return "refused"
    return "success"


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_a_vector_has_its_expected_outcome(path):
    vector = json.loads(path.read_text())
    context = json.loads((FOLDER / vector["context"]).read_text())

    assert outcome_of(vector, context) == vector["expect"]


def test_the_outcomes_are_the_closed_list_and_cover_it():
    expected = {json.loads(path.read_text())["expect"] for path in VECTORS}

    assert expected == {"success", "refused"} | (set(Reason) - OF_A_SERVERS_STATE)
