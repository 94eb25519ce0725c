"""What the server asked last and what was answered, for `check` and `status`; it stays here."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path

import fedcondense
from fedcondense.config.site import SiteConfig
from fedcondense.exchange.keys import fingerprint_digits
from fedcondense.files.storage import read_json, sha256, write_json

RESULT = "query.result"  # the last message of a study


@dataclass(frozen=True)
class LastRequest:
    """One request as the site answered it.

    `when` is in seconds since 1970 UTC, `kind` the type of the message, `code` an FC code or empty,
    `version` the server's of fedcondense, empty where the message was not understood. `basis` is
    what the site judged it by: an answer says nothing of another study, key or version.
    """

    when: int
    kind: str
    round: int
    outcome: str
    code: str
    version: str
    basis: str = ""

    @property
    def ends_study(self) -> bool:
        """Whether the server told what the study gave, and this site has taken it."""
        return (self.kind, self.outcome) == (RESULT, "ready")

    def line(self) -> str:
        """One line for a log."""
        answer = f"{self.outcome} {self.code}".rstrip()
        return f"{self.kind}, round {self.round}: {answer}"


def basis_of(site: SiteConfig) -> str:
    """What requests are judged by: study, pinned key, and this version of the software."""
    pinned = fingerprint_digits(site.run_signing_fingerprint)
    return sha256("/".join((site.study_digest, pinned, fedcondense.__version__)).encode())


def _path(state: Path) -> Path:
    return state / "last-request.json"


def note_request(state: Path, request: LastRequest) -> None:
    """Keep `request` as the last one; a full disk is no reason to leave the server unanswered."""
    with contextlib.suppress(OSError):
        write_json(_path(state), asdict(request))


def last_request(state: Path) -> LastRequest | None:
    """The last request, or None before the first."""
    try:
        return LastRequest(**read_json(_path(state)))
    except (FileNotFoundError, ValueError, TypeError):
        return None
