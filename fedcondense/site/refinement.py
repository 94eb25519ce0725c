"""What a later round of a site begins with: found on its disk, and learned from the global set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fedcondense.config.matching import Idm, Queue
from fedcondense.config.privacy import DpEmbed
from fedcondense.config.site import SiteConfig
from fedcondense.config.study import Study
from fedcondense.config.trajectory import Mtt
from fedcondense.distill.source import device_of
from fedcondense.errors import SettingsError
from fedcondense.exchange.round_result import Expected, Given
from fedcondense.exchange.shared_set import SharedSet
from fedcondense.files.storage import sha256
from fedcondense.learning.global_networks import BATCH, train_on_global_set
from fedcondense.learning.partition import expand_labels, expand_partitions
from fedcondense.learning.refinement import FIRST_ROUND, OwnSet, Refinement
from fedcondense.learning.training import TrainingSet
from fedcondense.privacy.chain import Row
from fedcondense.progress import Watch, silent
from fedcondense.site.global_set import kept_global
from fedcondense.site.state import RoundState

MOST_MAPS = 8  # of dp-embed that learn; the others stay random, for each costs some seconds


@dataclass(frozen=True)
class Beginning:
    """What a round of this site rests on: its last set, if any, and what the server gave."""

    study: Study
    round: int
    last: RoundState | None = None
    given: Given | None = None

    @property
    def digest(self) -> str:
        """Of the study and of all that this round begins with: no other one goes on from it."""
        if self.given is None:
            return self.study.digest
        own = "" if self.last is None else self.last.record()["payload_sha256"]
        parts = (self.study.digest, self.given.result.set_sha256, own)
        return sha256("/".join(parts).encode("ascii"))

    @property
    def global_sha256(self) -> str:
        """Of the global set; empty in the first round."""
        return "" if self.given is None else self.given.result.set_sha256

    @property
    def paid(self) -> tuple[Row, ...]:
        """The rows of the ledger that what comes out will depend on, besides its own."""
        return () if self.last is None else self.last.outlay().paid.rests_on

    @property
    def accesses(self) -> int:
        """How often anything derived from patients was asked for, for those rows."""
        return 0 if self.last is None else self.last.outlay().accesses

    def refinement(self, site: SiteConfig, *, watch: Watch = silent) -> Refinement:
        """Read the last set, and let networks learn from the global one."""
        if self.given is None:
            return FIRST_ROUND
        device = device_of(site.device)
        views, rate = views_of(self.given.shared, self.study, device)
        networks = train_on_global_set(
            views, self.study, networks_needed(self.study), round=self.round, rate=rate, watch=watch
        )
        return Refinement(None if self.last is None else own_set(self.last), networks)


def beginning_of(site: SiteConfig, study: Study, round: int, given: Given | None) -> Beginning:
    """What `round` rests on; `given` is what came with the request, if one did.

    Raises:
        SettingsError: a later round was not given the global set of the one before.
        DescriptionRejected: the kept global set was changed.
    """
    if round == 1:
        return Beginning(study, round)
    if given is None:
        pinned = site.run_signing_fingerprint
        given = kept_global(site.state, Expected(study, pinned, round - 1))
    if given is None:
        raise SettingsError(
            f"round {round} begins with the global set of round {round - 1}, which the server "
            "has not sent to this site",
            hint="`join` takes part, and receives it when the server asks for the round",
        )
    return Beginning(study, round, last_set(site, study, round), given)


def last_set(site: SiteConfig, study: Study, round: int) -> RoundState | None:
    """The newest earlier round whose set the gate let pass; the site may have missed some."""
    earlier = (RoundState(site.state, study.digest, n) for n in range(round - 1, 0, -1))
    return next((state for state in earlier if state.has_passed()), None)


def networks_needed(study: Study) -> int:
    """How many networks that know the global set a method begins with."""
    method, privacy = study.distill, study.privacy
    maps = min(privacy.maps, MOST_MAPS) if isinstance(privacy, DpEmbed) else 0
    if isinstance(method, Mtt) or getattr(method, "queue", None) is Queue.EXPERTS:
        return 1  # where all experts begin
    if isinstance(method, Idm):
        return max(maps, min(method.queue_start, method.queue_length))
    return maps


def views_of(
    shared: SharedSet, study: Study, device: torch.device
) -> tuple[TrainingSet, float | None]:
    """What networks train on, every part of every stored image; the step size learned with it."""
    arrays, partition = shared.arrays(), study.distill.partition
    images = expand_partitions(torch.from_numpy(arrays.images).to(device), partition)
    labels = torch.from_numpy(arrays.labels.astype(np.int64)).to(device)
    soft = None
    if arrays.soft is not None:
        soft = torch.from_numpy(arrays.soft).to(device).repeat(partition * partition, 1)
    views = TrainingSet(images, expand_labels(labels, partition), BATCH, soft)
    return views, arrays.student_rate


def own_set(state: RoundState) -> OwnSet:
    """A kept set as a method begins with it."""
    kept = state.synthetic()
    soft, rate = kept.get("soft"), kept.get("student_rate")
    return OwnSet(
        images=torch.from_numpy(kept["images"].copy()),
        labels=torch.from_numpy(kept["labels"].copy()),
        soft=None if soft is None else torch.from_numpy(soft.copy()),
        student_rate=None if rate is None else float(rate),
    )
