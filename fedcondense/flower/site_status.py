"""`status`: does the site take part right now, and what has it answered so far?"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fedcondense.config.site import SiteConfig
from fedcondense.errors import KeyFileError
from fedcondense.exchange.keys import SigningKey
from fedcondense.exchange.node_key import NodeKey
from fedcondense.exchange.round_result import Intervals
from fedcondense.files.storage import read_json
from fedcondense.flower.health import is_serving
from fedcondense.progress import Step
from fedcondense.site.join_status import JoinState, JoinStatus, is_joined, read_status
from fedcondense.site.journal import JOURNAL, last_step
from fedcondense.site.last_request import LastRequest, last_request

UNREADABLE = "cannot be read; see `fedcondense-site check`"


@dataclass(frozen=True)
class RoundKept:
    """One round of one study as the site keeps it.

    `reached` is the last step that was reported. `scores` are those of the round's global set, by
    measure, as far as the server has told them; `has_set` says whether it sent the set too.
    """

    study_digest: str
    round: str
    condensed: bool
    sealed: int
    reached: Step | None = None
    scores: Intervals = field(default_factory=dict)
    has_set: bool = False


@dataclass(frozen=True)
class SiteStatus:
    """Whether a supervisor lives and its SuperNode serves, and what the site keeps.

    `serving` is the answer of the SuperNode's gRPC health service: the process is up. `join.
    connected` says whether the server has accepted it.
    """

    site: str
    supervised: bool
    serving: bool
    join: JoinStatus | None
    last: LastRequest | None
    rounds: tuple[RoundKept, ...]
    signing: str
    node: str

    @property
    def healthy(self) -> bool:
        """Whether the site takes part: exit code 0."""
        return self.supervised and self.serving


def site_status(site: SiteConfig) -> SiteStatus:
    """Ask the SuperNode's health service once, and read what the supervisor wrote."""
    join, supervised = read_status(site.state), is_joined(site.state)
    up = supervised and join is not None and join.state is JoinState.RUNNING
    return SiteStatus(
        site=site.name,
        supervised=supervised,
        serving=up and join is not None and is_serving(join.health_port),
        join=join,
        last=last_request(site.state),
        rounds=tuple(kept_rounds(site.state)),
        signing=_fingerprint(SigningKey, site.signing_key),
        node=_fingerprint(NodeKey, site.node_key),
    )


def kept_rounds(state: Path) -> list[RoundKept]:
    """The rounds of all studies in a state directory, oldest study digest first."""
    return [
        RoundKept(
            study_digest=folder.parent.name,
            round=folder.name.removeprefix("round-").lstrip("0"),
            condensed=(folder / "figures.json").exists(),
            sealed=len(list((folder / "sealed").glob("*.sealed"))),
            reached=last_step(folder / JOURNAL),
            scores=_scores(folder / "global" / "result.json"),
            has_set=(folder / "global" / "set.safetensors").exists(),
        )
        for folder in sorted(state.glob("runs/*/round-*"))
    ]


def _scores(result: Path) -> Intervals:
    """Of a result that was verified before it was kept."""
    try:
        scores: Intervals = read_json(result)["result"]["scores"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}
    return scores


def _fingerprint(kind: type[SigningKey] | type[NodeKey], path: Path) -> str:
    try:
        return kind.load(path).fingerprint
    except KeyFileError:
        return UNREADABLE
