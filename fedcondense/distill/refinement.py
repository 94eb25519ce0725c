"""How a method begins in a later round: with the site's own last set, and networks that know more.

The sets go class by class: one that the site has anew begins as in the first round, one that it
has no more is left behind.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from fedcondense.distill.source import Source
from fedcondense.distill.synthetic import SyntheticSet
from fedcondense.distill.trajectories import flat_weights
from fedcondense.learning.networks import Network
from fedcondense.learning.refinement import FIRST_ROUND, OwnSet, Refinement

LABELS = 256  # a label is one byte


def refinement_of(source: Source) -> Refinement:
    """What a source brings along from earlier rounds; nothing where it does not say."""
    return getattr(source, "refinement", FIRST_ROUND)


def begun(source: Source, start: SyntheticSet) -> SyntheticSet:
    """`start` with the images of the own last set, for the classes that it has equally many of."""
    own = refinement_of(source).own
    if own is None:
        return start
    images = start.images.clone()
    ours, theirs = matching_rows(start.labels, own.labels)
    images[ours] = own.images[theirs].to(images)
    return replace(start, images=images, started_from=images)


def begun_logits(
    source: Source, labels: Int64[Tensor, " n"], first: Float[Tensor, "n k"]
) -> Float[Tensor, "n k"]:
    """Logits of soft labels: those of the own last set where it has some, else `first`."""
    own = refinement_of(source).own
    if own is None or own.soft is None:
        return first
    logits = first.clone()
    ours, theirs = matching_rows(labels, own.labels)
    probabilities = own.soft[theirs].to(first)
    logits[ours] = probabilities.clamp(min=torch.finfo(first.dtype).tiny).log()
    return logits


def begun_rate(source: Source, first: float) -> float:
    """The student's step size as the own last set was left with it, else `first`."""
    own: OwnSet | None = refinement_of(source).own
    return first if own is None or own.student_rate is None else own.student_rate


def begun_networks(source: Source) -> list[Network]:
    """Networks that know the global set, to be trained further; none in the first round."""
    return [deepcopy(network).to(source.device) for network in refinement_of(source).networks]


def common_start(source: Source) -> Float[Tensor, " p"] | None:
    """The one public point where all experts begin; None where each begins afresh."""
    networks = refinement_of(source).networks
    return flat_weights(networks[0]) if networks else None


def matching_rows(
    ours: Int64[Tensor, " n"], theirs: Int64[Tensor, " m"]
) -> tuple[Int64[Tensor, " r"], Int64[Tensor, " r"]]:
    """Rows of the classes that both have equally many of, in the order of each; classes ascend."""
    counts = [torch.bincount(labels.cpu(), minlength=LABELS) for labels in (ours, theirs)]
    shared = (counts[0] == counts[1]) & (counts[0] > 0)
    one, other = (shared[labels.cpu()].nonzero().squeeze(1) for labels in (ours, theirs))
    return one.to(ours.device), other.to(theirs.device)
