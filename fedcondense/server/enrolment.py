"""Who may take part: an allow-list, and a list of keys that never come back.

Both lie beside SERVER.toml and belong to no single run. `enrolled/<site>.json` is the site's own
signed request, byte for byte, so whoever alters one loses the site. `revoked.jsonl` only grows; if
it is lost or cannot be read, nobody is enrolled and no run begins.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

from fedcondense.errors import EnrolmentRejected
from fedcondense.exchange.enrolment_request import (
    EnrolmentRequest,
    parse_enrolment,
    read_enrolment,
)
from fedcondense.exchange.strict_json import has_shape, read_strictly
from fedcondense.files.storage import (
    canonical_json,
    sha256,
    write_atomically,
    write_exclusively,
)
from fedcondense.server.run_directory import Enrolment, RunDirectory

LARGEST_REVOKED = 16 * 2**20  # bytes
_LINE: dict[str, type | tuple[type, ...]] = {
    "node_key": str,
    "officer_key": (str, type(None)),
    "revoked": int,
    "signing_key": str,
    "site": str,
}


class Standing(StrEnum):
    """Whether a site's keys are accepted today."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True)
class Revocation:
    """A site whose keys are refused for good, since `revoked`, in seconds since 1970 UTC."""

    site: str
    signing_key: str
    node_key: str
    officer_key: str | None
    revoked: int


@dataclass(frozen=True)
class Register:
    """The folder of enrolled sites and the file of revoked ones."""

    enrolled: Path
    revoked: Path

    def create(self) -> None:
        """Begin with nobody; what is there stays."""
        self.enrolled.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.revoked.exists():
            write_exclusively(self.revoked, b"", mode=0o600)

    def enroll(self, request: Path, *, now: float) -> EnrolmentRequest:
        """Accept the keys of a request, whose fingerprints were compared by voice or on paper.

        A site that is enrolled can only be given a later end: other keys need its revocation.

        Raises:
            EnrolmentRejected: the request is malformed, over, of a revoked key, or of a name or key
                that is enrolled otherwise.
        """
        asked = read_enrolment(request)
        self._demand_acceptable(asked, now)
        path = self._path(asked.site)
        data = request.read_bytes()
        if parse_enrolment(data) != asked:
            _refuse(f"{asked.site}: the file changes while it is read")
        write_atomically(path, data, mode=0o600)
        return asked

    def revoke(self, site: str, *, now: float) -> EnrolmentRequest:
        """Refuse all keys of a site for good.

        Raises:
            EnrolmentRejected: no such site is enrolled.
        """
        found = self.requests().get(site)
        if found is None:
            _refuse(f"{site}: not enrolled", hint="`fedcondense-server status` names all sites")
        values = {
            "node_key": found.node_key,
            "officer_key": found.officer_key,
            "revoked": int(now),
            "signing_key": found.signing_key,
            "site": site,
        }
        self.revocations()  # a list that cannot be read is not made longer
        _append(self.revoked, canonical_json(values) + b"\n")
        self._path(site).unlink(missing_ok=True)
        return found

    def requests(self) -> dict[str, EnrolmentRequest]:
        """What was enrolled, by name of site, whether it still counts or not.

        Raises:
            EnrolmentRejected: a file was altered, or is of another site.
        """
        found: dict[str, EnrolmentRequest] = {}
        for path in sorted(self.enrolled.glob("*.json")):
            request = read_enrolment(path)
            if request.site != path.stem:
                _refuse(f"{path.name}: the request of {request.site}")
            found[request.site] = request
        return found

    def revocations(self) -> tuple[Revocation, ...]:
        """All revocations, oldest first.

        Raises:
            EnrolmentRejected: the list is missing or cannot be read.
        """
        try:
            if self.revoked.stat().st_size > LARGEST_REVOKED:
                _refuse(f"{self.revoked.name}: it is too long")
            data = self.revoked.read_bytes()
        except OSError as error:
            why = (error.strerror or "unreadable").lower()
            _refuse(
                f"{self.revoked.name}: {why}",
                hint="restore it: without it a revoked site could come back",
            )
        return tuple(self._lines(data))

    def standing(self, *, now: float) -> dict[str, Standing]:
        """How each site stands that was ever enrolled here.

        Raises:
            EnrolmentRejected: a file cannot be read.
        """
        found = {revocation.site: Standing.REVOKED for revocation in self.revocations()}
        barred = self._barred()
        for site, request in self.requests().items():
            found[site] = Standing.ACTIVE if request.expires > now else Standing.EXPIRED
            if keys_of(request) & barred:  # revoked, and stopped before its file was gone
                found[site] = Standing.REVOKED
        return {site: found[site] for site in sorted(found)}

    def active(self, *, now: float) -> dict[str, EnrolmentRequest]:
        """The sites whose keys are accepted, by name: enrolled, not over, no key revoked.

        Raises:
            EnrolmentRejected: a file cannot be read.
        """
        standing, requests = self.standing(now=now), self.requests()
        return {site: r for site, r in requests.items() if standing[site] is Standing.ACTIVE}

    def _demand_acceptable(self, asked: EnrolmentRequest, now: float) -> None:
        if asked.expires <= now:
            _refuse(f"{asked.site}: the request is over", hint="ask the site for a new one")
        if keys_of(asked) & self._barred():
            _refuse(f"{asked.site}: one of its keys was revoked", hint="the site makes new keys")
        enrolled = self.requests()
        stands = enrolled.pop(asked.site, asked)
        if _raw_keys(stands) != _raw_keys(asked):
            _refuse(
                f"{asked.site}: enrolled with other keys",
                hint=f"revoke {asked.site} first, which is for good",
            )
        _demand_own_keys(asked, enrolled)

    def _barred(self) -> set[str]:
        return {key for revocation in self.revocations() for key in keys_of(revocation)}

    def _lines(self, data: bytes) -> Iterator[Revocation]:
        for number, line in enumerate(data.splitlines(), start=1):
            try:
                values = read_strictly(line)
            except ValueError:
                values = {}
            if not has_shape(values, _LINE):
                _refuse(
                    f"{self.revoked.name}: line {number} cannot be read",
                    hint="restore the file: nothing in it is ever changed",
                )
            yield Revocation(**values)

    def _path(self, site: str) -> Path:
        return self.enrolled / f"{site}.json"


def keys_of(owner: EnrolmentRequest | Revocation) -> set[str]:
    """All public keys of a site: signing, node, and the data officer's where there is one."""
    return {key for key in _raw_keys(owner) if key}


def admit(run: RunDirectory, sites: Mapping[str, EnrolmentRequest]) -> None:
    """Make the allow-list of a run that of these sites.

    What a site had stored that is not on it any more, or comes with other keys, is put aside: it
    counts for no quorum and is not opened.
    """
    stand = run.enrolled
    for site, keys in stand.items():
        if site not in sites or _enrolment(sites[site]) != keys:
            _put_aside(run, site)  # first: a site that is expelled is never looked at again
            run.expel(site)
            _put_aside(run, site)  # and what came in between
    for site, request in sites.items():
        if stand.get(site) != _enrolment(request):
            run.enrol(site, _enrolment(request))


def _enrolment(request: EnrolmentRequest) -> Enrolment:
    officer = bytes.fromhex(request.officer_key) if request.officer_key else None
    return Enrolment(bytes.fromhex(request.signing_key), officer)


def _put_aside(run: RunDirectory, site: str) -> None:
    for path in run.path.glob(f"round-[0-9]*/sealed/{site}.sealed"):
        aside = path.parent.parent / "withdrawn"
        aside.mkdir(mode=0o700, exist_ok=True)
        path.rename(aside / f"{site}-{sha256(path.read_bytes())[:16]}.sealed")


def _demand_own_keys(asked: EnrolmentRequest, others: Mapping[str, EnrolmentRequest]) -> None:
    """One officer may serve several sites, but who seals for one approves for none."""
    for site, other in others.items():
        if {asked.signing_key, asked.node_key} & {other.signing_key, other.node_key}:
            _refuse(f"{asked.site}: one of its keys is {site}'s")
    every = [asked, *others.values()]
    if {of.signing_key for of in every} & {of.officer_key for of in every}:
        _refuse(f"{asked.site}: a key that seals is an officer's too")


def _raw_keys(owner: EnrolmentRequest | Revocation) -> tuple[str | None, ...]:
    return owner.signing_key, owner.node_key, owner.officer_key


def _append(path: Path, line: bytes) -> None:
    """Add a line and see it on the disk; the file is there."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse(why: str, *, hint: str = "compare with the site by voice or on paper") -> NoReturn:
    raise EnrolmentRejected(why, hint=hint)
