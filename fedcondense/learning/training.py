"""Train and apply a classifier, by the recipe of the distillation papers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from fedcondense.learning.augment import augment, draw_augmentation

RATE, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 5e-4  # Zhao et al. 2023, sec. 5.1


@dataclass(frozen=True)
class TrainingSet:
    """Images in normalised units with their labels, and how much of each batch they fill."""

    images: Float[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    batch: int


def shuffled_rows(n: int, batch: int, generator: torch.Generator) -> Iterator[Int64[Tensor, " b"]]:
    """Rows of one random order after another, for ever; the last batch of an order is smaller."""
    while True:
        yield from torch.randperm(n, generator=generator).split(batch)


def train_classifier(
    network: nn.Module,
    sets: Sequence[TrainingSet],
    *,
    steps: int,
    families: Sequence[str],
    generator: torch.Generator,
) -> None:
    """Train `network` in place with batches that draw from every one of `sets`.

    At half the length the rate falls to a tenth, with a new optimiser whose momentum is zero, as
    in the published recipe.
    """
    orders = [shuffled_rows(len(s.labels), s.batch, generator) for s in sets]
    network.train()
    optimiser = _optimiser(network, RATE)
    for step in range(steps):
        if step == steps // 2 + 1:
            optimiser = _optimiser(network, RATE / 10)
        rows = [next(order) for order in orders]
        images = torch.cat([s.images[r] for s, r in zip(sets, rows, strict=True)])
        labels = torch.cat([s.labels[r] for s, r in zip(sets, rows, strict=True)])
        images = augment(images, draw_augmentation(families, generator, len(images)))
        loss = F.cross_entropy(network(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def _optimiser(network: nn.Module, rate: float) -> torch.optim.SGD:
    return torch.optim.SGD(
        network.parameters(), lr=rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )


@torch.no_grad()
def predict(network: nn.Module, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
    """Class probabilities."""
    network.eval()
    return torch.cat([network(part).softmax(dim=1) for part in images.split(512)])
