"""Whatever comes in, only `ContributionRejected` comes out, and memory stays bounded."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from wire_kit import Wire, facts_of, small_study

from fedcondense.config.study import LARGEST_CONTRIBUTION
from fedcondense.errors import ContributionRejected
from fedcondense.exchange.contents import Body, decode_body, encode_body
from fedcondense.exchange.contribution import Payload, Provenance
from fedcondense.exchange.release_record import build_record
from fedcondense.exchange.sealing import open_sealed
from fedcondense.exchange.terms import Terms, terms_of


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip, cut, insert, repeat or overwrite at a random place."""
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 64))
    noise = rng.bytes(length)
    return (
        data[:at] + bytes([data[at] ^ int(rng.integers(1, 256))]) + data[at + 1 :],
        data[:at],
        data[:at] + noise + data[at:],
        data[:at] + data[at : at + length] * 2 + data[at + length :],
        data[:at] + noise + data[at + length :],
        data[:at] + bytes(length) + data[at + length :],
    )[int(rng.integers(6))]


@pytest.mark.parametrize(
    ("seed", "times"), [(7, 1_000), pytest.param(70, 10_000, marks=pytest.mark.slow)]
)
def test_mutated_contributions_are_only_ever_rejected_and_fill_no_memory(wire, seed, times):
    rng, blob, expected = np.random.default_rng(seed), wire.sealed(), wire.expectation
    refused = 0

    tracemalloc.start()
    for _ in range(times):
        bad = mutated(blob, rng)
        if bad == blob:
            continue
        with pytest.raises(ContributionRejected):
            open_sealed(bad, expected, wire.opening)
        refused += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert refused > 0.95 * times
    assert peak < 16 * len(blob)


# What a record says that follows from nothing else; the site's signature is what protects it.
OPEN = {"attempts", "data_accesses", "date", "declared", "privacy", "software"}


def survives(bad: bytes, good: Body, terms: Terms) -> bool:
    """Whether a body is read, which it may only be as the same payload under the same words."""
    try:
        read = decode_body(bad, "release", terms, round=1)
    except ContributionRejected:
        return False
    assert (read.payload, read.approvals) == (good.payload, good.approvals)
    changed = {key for key, value in read.record.items() if value != good.record[key]}
    assert changed <= OPEN
    return True


def test_a_thousand_mutated_bodies_are_rejected_or_say_the_same_of_the_same_payload(wire):
    """Behind a right signature; the head is where the structure is, so that is what is mutated."""
    rng, body, terms = np.random.default_rng(8), wire.body(), terms_of(wire.study)
    good, head, refused = decode_body(body, "release", terms, round=1), 2400, 0

    for _ in range(1000):
        bad = (mutated(body[:head], rng) + body[head:])[: len(body)].ljust(len(body), b"\0")
        if bad == body:
            continue
        refused += not survives(bad, good, terms)

    assert refused > 900


def test_mutated_bodies_with_soft_labels_are_rejected_or_say_the_same(learning):
    """Head and soft labels are mutated; all between them is pixels."""
    rng, body, terms = np.random.default_rng(9), learning.body(), terms_of(learning.study)
    good, head, refused = decode_body(body, "release", terms, round=1), 2400, 0
    soft = body.rindex(learning.released().payload.soft)

    for _ in range(400):
        begin, end = ((0, head), (soft - 3, soft + 24))[int(rng.integers(2))]
        bad = body[:begin] + mutated(body[begin:end], rng) + body[end:]
        bad = bad[: len(body)].ljust(len(body), b"\0")
        if bad == body:
            continue
        refused += not survives(bad, good, terms)

    assert refused > 350


def outcome_of(body: bytes, terms: Terms) -> str:
    try:
        decode_body(body, "release", terms, round=1)
    except ContributionRejected as rejected:
        return rejected.reason
    return "success"


def test_random_soft_labels_under_a_right_digest_are_probabilities_or_rejected(learning):
    rng, terms = np.random.default_rng(10), terms_of(learning.study)
    payload, outcomes = learning.released().payload, []

    for _ in range(300):
        soft = rng.dirichlet((1, 1), 3).astype("<f2")
        if rng.random() < 0.7:
            soft.view("<u2")[rng.integers(3), rng.integers(2)] = rng.integers(2**16)
        rows = soft.tolist()  # as the standard library's floats: a second opinion
        good = all(min(row) >= 0 and abs(math.fsum(row) - 1) <= 0.01 for row in rows)
        body = _body_of(replace(payload, soft=soft.tobytes()), terms)
        outcomes.append(outcome_of(body, terms))
        assert outcomes[-1] == ("success" if good else "soft")

    assert min(outcomes.count("success"), outcomes.count("soft")) > 50


def test_the_largest_contribution_is_opened_within_twice_the_cap():
    study = small_study(image={"size": 512, "channels": 3}, images_per_class=42)
    wire = Wire(study)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (84, 3, 512, 512), np.uint8)
    blob = _sealed(wire, images)

    tracemalloc.start()
    opened = open_sealed(blob, wire.expectation, wire.opening)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert len(blob) > 0.98 * LARGEST_CONTRIBUTION
    assert opened.payload.shape == (84, 3, 512, 512)
    assert peak < 2 * LARGEST_CONTRIBUTION


def test_a_bomb_is_refused_before_anything_is_allocated(wire):
    blob = wire.blob(wire.manifest(body_bytes=2**50))
    expected = wire.expectation

    tracemalloc.start()
    with pytest.raises(ContributionRejected, match="size"):
        open_sealed(blob, expected, wire.opening)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 2**20


def _sealed(wire: Wire, images: np.ndarray) -> bytes:
    labels = np.repeat([0, 1], len(images) // 2).astype(np.uint8).tobytes()
    origin, terms = Provenance.of(wire.study, ()), terms_of(wire.study)
    payload = Payload(images.tobytes(), labels, images.shape, "-4", "4", origin)
    return wire.blob(body=_body_of(payload, terms))


def _body_of(payload: Payload, terms: Terms) -> bytes:
    record = build_record(payload, terms, purpose="release", facts=facts_of())
    return encode_body(payload, record, terms)
