from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from wire_kit import Wire, payload_of

from fedcondense.errors import ContributionRejected
from fedcondense.exchange.approval import (
    Approval,
    approve,
    check_approvals,
    is_approved,
    read_approvals,
    write_approvals,
)
from fedcondense.exchange.keys import SigningKey, fingerprint_digits, verify_signature
from fedcondense.exchange.run_description import Request
from fedcondense.exchange.sealing import open_sealed, seal

OFFICER = SigningKey(bytes(range(32)))
DIGEST, OTHER = "ab" * 32, "cd" * 32


@pytest.fixture(scope="module")
def guarded(wire: Wire) -> Wire:
    """The run in which site-1 was enrolled with its data officer."""
    return replace(wire, officers={"site-1": OFFICER})


def refused(approvals, digest=DIGEST, officer=OFFICER.public) -> bool:
    try:
        check_approvals(approvals, digest, officer)
    except ContributionRejected as rejected:
        return rejected.reason == "approvals"
    return False


def sealed_with(wire: Wire, approvals, site: str = "site-1") -> bytes:
    released, request = wire.released(), Request(wire.description, 1)
    return seal(released, request, site, wire.study, wire.keys[site], approvals=approvals)


def reason_of(wire: Wire, blob: bytes) -> str:
    with pytest.raises(ContributionRejected) as rejected:
        open_sealed(blob, wire.expectation, wire.opening)
    return rejected.value.reason


def test_an_approval_is_a_signature_over_the_digest_under_its_own_name():
    approval = approve(DIGEST, OFFICER)

    message = b"fedcondense/approval/v1\0" + bytes.fromhex(DIGEST)
    assert verify_signature(OFFICER.public, bytes.fromhex(approval.signature), message)
    named = hashlib.sha256(b"Ed25519\0" + OFFICER.public).hexdigest()
    assert approval.fingerprint == named == fingerprint_digits(OFFICER.fingerprint)


def test_an_approval_has_these_bytes():
    """Golden: RFC 8032 signatures are deterministic. The secret is 00 01 ... 1f."""
    approval = approve(DIGEST, OFFICER)

    assert approval.fingerprint.startswith("f0f405a99989a99178a6d485c0c40d2d")
    assert approval.signature.startswith("d300cfc1c9f041a526e16b4d43f5cc09")


def test_the_officers_approval_of_this_payload_counts():
    approval = approve(DIGEST, OFFICER)

    assert is_approved([approval], DIGEST, OFFICER.public)
    assert not refused([approval])


@pytest.mark.parametrize(
    "approvals",
    [
        [],
        [approve(OTHER, OFFICER)],
        [approve(DIGEST, SigningKey(bytes(32)))],
        [Approval(approve(DIGEST, OFFICER).fingerprint, "00" * 64)],
        [replace(approve(DIGEST, SigningKey(bytes(32))), fingerprint="0" * 64)],
        [approve(DIGEST, OFFICER), approve(DIGEST, SigningKey(bytes(32)))],
    ],
    ids=["missing", "other payload", "other key", "no signature", "nobody", "one too many"],
)
def test_anything_else_does_not(approvals):
    assert refused(approvals)
    if len(approvals) < 2:
        assert not is_approved(approvals, DIGEST, OFFICER.public)


def test_where_no_officer_is_enrolled_no_approval_is_known():
    assert not refused([], officer=None)
    assert refused([approve(DIGEST, OFFICER)], officer=None)


def test_what_is_written_is_read():
    approvals = (approve(DIGEST, OFFICER), approve(DIGEST, SigningKey(bytes(32))))

    assert read_approvals(write_approvals(approvals)) == approvals


GOOD = write_approvals([approve(DIGEST, OFFICER)])[0]


@pytest.mark.parametrize(
    "values",
    [
        [GOOD, GOOD],
        [GOOD | {"fingerprint": of * 64} for of in "abc"],
        [GOOD | {"fingerprint": "0" * 63}],
        [GOOD | {"fingerprint": "G" * 64}],
        [GOOD | {"fingerprint": 1}],
        [GOOD | {"signature": "0" * 126}],
        [GOOD | {"signature": "A" * 128}],
        [GOOD | {"name": "Jane Doe"}],
        [{"fingerprint": "0" * 64}],
        ["Jane Doe"],
        [None],
    ],
)
def test_an_approval_of_another_form_is_refused_whoever_reads(values):
    with pytest.raises(ContributionRejected, match=r"^contribution rejected: approvals$"):
        read_approvals(values)


def test_an_approved_contribution_is_opened_and_its_approval_handed_on(guarded):
    opened = open_sealed(guarded.sealed(), guarded.expectation, guarded.opening)

    assert [of.fingerprint for of in opened.approvals] == [fingerprint_digits(OFFICER.fingerprint)]


def test_a_missing_approval_is_refused_by_the_server(guarded):
    assert reason_of(guarded, sealed_with(guarded, ())) == "approvals"


def test_an_approval_of_another_payload_is_refused_by_the_server(guarded):
    other = payload_of(guarded.study, seed=1)

    assert reason_of(guarded, sealed_with(guarded, [approve(other.sha256, OFFICER)])) == "approvals"


@pytest.mark.parametrize("who", ["stranger", "site"])
def test_an_approval_by_anybody_but_the_officer_is_refused_by_the_server(guarded, who):
    key = SigningKey.generate() if who == "stranger" else guarded.keys["site-1"]
    payload = guarded.released().payload

    assert reason_of(guarded, sealed_with(guarded, [approve(payload.sha256, key)])) == "approvals"


def test_an_approval_where_no_officer_is_enrolled_is_refused_by_the_server(guarded):
    approval = approve(guarded.released().payload.sha256, OFFICER)

    assert reason_of(guarded, sealed_with(guarded, [approval], "site-2")) == "approvals"


def test_a_replaced_payload_under_a_good_approval_is_refused_by_the_server(guarded):
    """The insider's way: the approval of a harmless set beside another one, rightly sealed."""
    harmless = guarded.released(seed=1)
    approval = write_approvals([approve(harmless.payload.sha256, OFFICER)])
    body = guarded.body(guarded.contents(approvals=approval))
    replaced = guarded.contents(approvals=approval, payload_sha256=harmless.payload.sha256)

    assert reason_of(guarded, guarded.blob(body=body)) == "approvals"
    assert reason_of(guarded, guarded.blob(body=guarded.body(replaced))) == "digest"


def test_more_than_two_approvals_are_not_even_sealed(wire):
    many = [approve(wire.released().payload.sha256, SigningKey(bytes([n] * 32))) for n in range(3)]

    with pytest.raises(ContributionRejected, match="approvals"):
        sealed_with(wire, many)
