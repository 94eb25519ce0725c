"""Who is enrolled; check what can be checked sealed; store once.

Runs inside the ServerApp: it opens nothing, knows no opening key and loads no torch.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from fedcondense.errors import ContributionRejected, RunDirectoryError
from fedcondense.exchange.contribution import SITE_NAME
from fedcondense.exchange.rejection import Reason, demand
from fedcondense.exchange.sealing import read_manifest, verify
from fedcondense.files.storage import read_json, sha256, write_exclusively, write_json
from fedcondense.server.run_directory import RunDirectory

MOST_ATTEMPTS = 5  # refused contributions per site and round until the first stored one
LARGEST_RUN = 2 * 2**30  # bytes of sealed contributions
NOBODY = "?"  # no site's name: who sent it is not known

Rejections = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Receipt:
    """A stored contribution; `duplicate` if the same bytes were stored before."""

    site: str
    sha256: str
    duplicate: bool


def enroll(run: RunDirectory, site: str, public: bytes) -> None:
    """Put a site on the allow-list of a run; its fingerprint was compared by voice or on paper.

    Raises:
        RunDirectoryError: the name is no site's name, or name or key are enrolled otherwise.
    """
    if not SITE_NAME.fullmatch(site) or len(public) != 32:
        raise RunDirectoryError(
            "not an enrolment of a site",
            hint="a name is of a-z, 0-9, - and _, at most 40; a public key has 32 bytes",
        )
    enrolled = run.enrolled
    if enrolled.get(site, public.hex()) != public.hex():
        raise RunDirectoryError(f"{site}: enrolled with another key", hint="begin a new run")
    if public.hex() in enrolled.values() and site not in enrolled:
        raise RunDirectoryError(f"{site}: the key is another site's", hint="make a key per site")
    write_json(run.enrolment_path, {**enrolled, site: public.hex()})


def receive(run: RunDirectory, blob: bytes, round: int, *, sender: str | None = None) -> Receipt:
    """Check a contribution as far as it can be checked sealed, and store it once, for good.

    Args:
        run: the run that it was sent to.
        blob: what came in.
        round: the round that is open.
        sender: the site that the transport authenticated. Without it a refused contribution
            counts as an attempt of the enrolled site that its manifest names, true or not.

    Returns:
        The receipt; the same bytes again are a success, counted once.

    Raises:
        ContributionRejected: `reason` is the first check that failed; it is counted.
    """
    enrolled = run.enrolled
    site = sender
    try:
        site = site or read_manifest(blob).site
        return _store(run, blob, round, site)
    except ContributionRejected as rejected:
        _count(run, round, site if site in enrolled else None, rejected.reason)
        raise


def rejections(run: RunDirectory, round: int) -> Rejections:
    """How often each site was refused in a round, by reason; `?` is nobody enrolled."""
    path = run.rejections(round)
    return dict(read_json(path)) if path.exists() else {}


def _store(run: RunDirectory, blob: bytes, round: int, site: str) -> Receipt:
    path, digest = run.sealed(round, site), sha256(blob)
    expected = run.expectation(round)
    demand(site in expected.enrolled, Reason.SITE)
    attempts = sum(rejections(run, round).get(site, {}).values())
    demand(path.exists() or attempts < MOST_ATTEMPTS, Reason.ATTEMPTS)
    demand(verify(blob, expected).site == site, Reason.SITE)
    if not path.exists():
        demand(_stored_bytes(run) + len(blob) <= LARGEST_RUN, Reason.FULL)
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
