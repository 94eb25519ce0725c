"""The mathematics of distribution matching: objective, siamese views, exact momentum.

Tensors hold classes one after another, equally many views of each: view v of class c is row
c * views + v.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from fedcondense.learning.augment import Augmentation, augment
from fedcondense.learning.partition import expand_partitions


def class_means(features: Float[Tensor, "n d"], sizes: Sequence[int]) -> Float[Tensor, "classes d"]:
    """The mean embedding of each class; `sizes` says how many rows each has, in order."""
    return torch.stack([part.mean(dim=0) for part in features.split(list(sizes))])


def matching_loss(
    real_means: Float[Tensor, "classes d"], synthetic_means: Float[Tensor, "classes d"]
) -> Float[Tensor, ""]:
    """Squared distance of class means, summed over embedding dimensions and classes.

    Zhao et al. 2023, eq. 2: a sum over dimensions, so its size grows with the network.
    """
    return (real_means - synthetic_means).square().sum()


def class_regularisation(
    logits: Float[Tensor, "n k"], labels: Int64[Tensor, " n"], classes: int
) -> Float[Tensor, ""]:
    """Cross-entropy, a mean over each class's own views, summed over classes (eq. 4)."""
    return F.cross_entropy(logits, labels) * classes


def augmented_views(
    images: Float[Tensor, "n c h w"],
    partition: int,
    per_class: Sequence[Augmentation | None],
) -> Float[Tensor, "views c h w"]:
    """Expand each class's images and augment them with that class's drawn parameters."""
    per = len(images) // len(per_class)
    return torch.cat(
        [
            augment(expand_partitions(own, partition), drawn)
            for own, drawn in zip(images.split(per), per_class, strict=True)
        ]
    )


def folded_momentum(rate: float, momentum: float, classes: int) -> tuple[float, float]:
    """Step size and momentum of one step that equals the published one per class.

    The published loop steps one shared optimiser once per class, so each class's velocity decays
    through the other classes' zero gradients: C moves of one gradient sum to
    rate (1 - mu^C) / (1 - mu), and mu^C of the velocity is left for the next iteration.
    """
    decay = momentum**classes
    return rate * (1 - decay) / (1 - momentum), decay


def momentum_step(
    pixels: Float[Tensor, "n c h w"],
    velocity: Float[Tensor, "n c h w"],
    gradient: Float[Tensor, "n c h w"],
    *,
    rate: float,
    momentum: float,
) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c h w"]]:
    """Pixels and velocity after one step of gradient descent with momentum."""
    velocity = momentum * velocity + gradient
    return pixels - rate * velocity, velocity
