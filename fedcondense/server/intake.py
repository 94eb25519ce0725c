"""Who is enrolled; check what can be checked sealed; store once.

Runs inside the ServerApp: it opens nothing, knows no opening key and loads no torch.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from fedcondense.errors import ContributionRejected, RunDirectoryError
from fedcondense.exchange.contribution import SITE_NAME
from fedcondense.exchange.rejection import Reason, demand
from fedcondense.exchange.sealing import read_manifest, verify
from fedcondense.files.storage import read_json, sha256, write_exclusively, write_json
from fedcondense.server.run_directory import Enrolment, RunDirectory

MOST_ATTEMPTS = 5  # refused contributions per site and round until the first stored one
LARGEST_RUN = 2 * 2**30  # bytes of sealed contributions
NOBODY = "?"  # no site's name: who sent it is not known

Rejections = dict[str, dict[str, int]]


@dataclass(frozen=True)
class IntakeLimits:
    """What a server takes in; nothing that a site sends can raise it."""

    attempts: int = MOST_ATTEMPTS
    stored_bytes: int = LARGEST_RUN


STANDARD = IntakeLimits()


@dataclass(frozen=True)
class Receipt:
    """A stored contribution; `duplicate` if the same bytes were stored before."""

    site: str
    sha256: str
    duplicate: bool


def enroll(run: RunDirectory, site: str, public: bytes, *, officer: bytes | None = None) -> None:
    """Put a site on the allow-list of a run; its fingerprints were compared by voice or on paper.

    Args:
        run: the run.
        site: the name.
        public: the site's raw public signing key.
        officer: that of its data officer, without whose approval nothing of the site counts.

    Raises:
        RunDirectoryError: the name is no site's name, or name or keys are enrolled otherwise.
    """
    keys = {public} if officer is None else {public, officer}
    if not SITE_NAME.fullmatch(site) or {len(key) for key in keys} != {32}:
        raise RunDirectoryError(
            "not an enrolment of a site",
            hint="a name is of a-z, 0-9, - and _, at most 40; a public key has 32 bytes",
        )
    enrolment, others = Enrolment(public, officer), run.enrolled
    stands = others.pop(site, enrolment)
    if stands.public != public:
        raise RunDirectoryError(f"{site}: enrolled with another key", hint="begin a new run")
    if stands.officer != officer:
        raise RunDirectoryError(f"{site}: enrolled with another officer", hint="begin a new run")
    _demand_own_keys(site, enrolment, others)
    run.enrol(site, enrolment)


def receive(
    run: RunDirectory,
    blob: bytes,
    round: int,
    *,
    sender: str | None = None,
    limits: IntakeLimits = STANDARD,
) -> Receipt:
    """Check a contribution as far as it can be checked sealed, and store it once, for good.

    Args:
        run: the run that it was sent to.
        blob: what came in.
        round: the round that is open.
        sender: the site that the transport authenticated. Without it a refused contribution
            counts as an attempt of the enrolled site that its manifest names, true or not.
        limits: of attempts and of disk.

    Returns:
        The receipt; the same bytes again are a success, counted once.

    Raises:
        ContributionRejected: `reason` is the first check that failed; it is counted.
    """
    enrolled = run.enrolled
    site = sender
    try:
        site = site or read_manifest(blob).site
        return _store(run, blob, round, site, limits)
    except ContributionRejected as rejected:
        _count(run, round, site if site in enrolled else None, rejected.reason)
        raise


def rejections(run: RunDirectory, round: int) -> Rejections:
    """How often each site was refused in a round, by reason; `?` is nobody enrolled."""
    path = run.rejections(round)
    return dict(read_json(path)) if path.exists() else {}


def _demand_own_keys(site: str, enrolment: Enrolment, others: dict[str, Enrolment]) -> None:
    """One officer may serve several sites, but who seals for one approves for none."""
    if enrolment.public in {other.public for other in others.values()}:
        raise RunDirectoryError(f"{site}: the key is another site's", hint="make a key per site")
    every = [enrolment, *others.values()]
    if {of.public for of in every} & {of.officer for of in every}:
        raise RunDirectoryError(
            f"{site}: a key that seals is an officer's too", hint="make a key for the officer alone"
        )


def _store(run: RunDirectory, blob: bytes, round: int, site: str, limits: IntakeLimits) -> Receipt:
    path, digest = run.sealed(round, site), sha256(blob)
    expected = run.expectation(round)
    demand(site in expected.enrolled, Reason.SITE)
    attempts = sum(rejections(run, round).get(site, {}).values())
    demand(path.exists() or attempts < limits.attempts, Reason.ATTEMPTS)
    demand(verify(blob, expected).site == site, Reason.SITE)
    if not path.exists():
        demand(_stored_bytes(run) + len(blob) <= limits.stored_bytes, Reason.FULL)
    try:
        write_exclusively(path, blob)
    except FileExistsError:
        demand(sha256(path.read_bytes()) == digest, Reason.REPLAYED)
        return Receipt(site, digest, duplicate=True)
    return Receipt(site, digest, duplicate=False)


def _stored_bytes(run: RunDirectory) -> int:
    return sum(path.stat().st_size for path in run.path.glob("round-*/sealed/*.sealed"))


def _count(run: RunDirectory, round: int, site: str | None, reason: str) -> None:
    """Counters, not lines: however many bad contributions come, the file stays small."""
    counted = rejections(run, round)
    name = site or NOBODY
    counted[name] = dict(Counter(counted.get(name, {})) + Counter({reason: 1}))
    write_json(run.rejections(round), counted)


def stored_sites(run: RunDirectory, round: int) -> list[str]:
    """Enrolled sites whose contribution stands in the run directory: looked at often, never read.

    `stored_digests` reads all of them.
    """
    return [site for site in run.enrolled if run.sealed(round, site).exists()]


def stored_digests(run: RunDirectory, round: int) -> dict[str, str]:
    """Digest of each contribution that stands in the run directory, by enrolled site."""
    sites = stored_sites(run, round)
    return {site: sha256(run.sealed(round, site).read_bytes()) for site in sites}


def rejected_sites(run: RunDirectory, round: int) -> set[str]:
    """Sites whose stored contribution the parent opened and refused; it counts for no quorum.

    It stands for good all the same: the site is not asked again in this round.
    """
    if not run.verdicts(round).exists():
        return set()
    verdicts = read_json(run.verdicts(round))["sites"]
    stored = stored_digests(run, round)
    return {site for site, digest in stored.items() if _is_refused(verdicts.get(site, {}), digest)}


def _is_refused(verdict: dict[str, Any], digest: str) -> bool:
    """Whether it is the verdict of these bytes: a site with new keys may have sent others."""
    return verdict.get("verdict") == "rejected" and verdict.get("sealed_sha256", digest) == digest
