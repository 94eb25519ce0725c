"""Distribution matching: the loop that DM and IDM share.

All classes of the site pass through one forward. `matching` holds the mathematics; which networks
embed the images is the method's own affair (`FeatureMaps`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from fedcondense.config.matching import Matching
from fedcondense.config.study import Study
from fedcondense.distill.checkpoints import State, of_prefix, with_prefix
from fedcondense.distill.matching import (
    augmented_views,
    class_means,
    class_regularisation,
    matching_loss,
)
from fedcondense.distill.pixel_descent import PixelDescent
from fedcondense.distill.source import Source
from fedcondense.learning.augment import Augmentation, augment, draw_augmentation
from fedcondense.learning.networks import Network
from fedcondense.learning.randomness import Seed

REAL_IMAGES_AT_ONCE = 128


@runtime_checkable
class FeatureMaps(Protocol):
    """The networks that a distribution is matched in."""

    def maintain(self, iteration: int) -> None:
        """Do what is due before an iteration."""

    def sample(self) -> tuple[Network, Tensor | float]:
        """A network, and the weight of the class regularisation with it."""

    def learn(self, source: Source) -> dict[str, Tensor]:
        """Do what is due after an iteration; figures of it, on the device."""

    def state(self) -> State:
        """Everything that a resumed run needs, as tensors by name."""

    def restore(self, state: State) -> None:
        """Take up the state of `state()`."""


@dataclass(frozen=True)
class Drawn:
    """Everything random of one matching: per class real images and one shared augmentation."""

    real: list[Float[Tensor, "_ c h w"]]  # as many of each class as there are
    augmentations: list[Augmentation | None]


def draw(
    source: Source, settings: Matching, generator: torch.Generator, sampling: torch.Generator
) -> Drawn:
    """Draw the real images (by `sampling`) and the siamese augmentation of each class."""
    real = [source.draw(label, settings.real_batch, sampling) for label in source.labels]
    augmentations = [draw_augmentation(settings.families, generator) for _ in source.labels]
    return Drawn(real, augmentations)


def objective(
    network: Network,
    images: Float[Tensor, "n c h w"],
    labels: Tensor,
    drawn: Drawn,
    *,
    partition: int,
    regularisation: Tensor | float,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Matching loss and weighted class regularisation of all classes (Zhao et al. eqs. 2, 4, 5).

    `images` (N, C, H, W) are stored ones, equally many of each class in order; `regularisation`
    is lambda times the network's accuracy. The real side carries no gradient.
    """
    classes = len(drawn.real)
    with torch.no_grad():
        real = [augment(r, a) for r, a in zip(drawn.real, drawn.augmentations, strict=True)]
        # no graph is kept, so parts cost no time and bound the memory
        parts = [network.features(part) for part in torch.cat(real).split(REAL_IMAGES_AT_ONCE)]
        real_means = class_means(torch.cat(parts), [len(r) for r in real])
    views = augmented_views(images, partition, drawn.augmentations)
    features, logits = network.features_and_logits(views)
    per_class = len(views) // classes
    matched = matching_loss(real_means, class_means(features, [per_class] * classes))
    view_labels = labels.repeat_interleave(partition * partition)
    return matched, regularisation * class_regularisation(logits, view_labels, classes)


class Distillation(PixelDescent):
    """The state of one run; `distill_dm` and `distill_idm` are the ways to run it."""

    def __init__(self, source: Source, study: Study, seed: Seed, maps: FeatureMaps) -> None:
        super().__init__(source, study, seed)
        self.maps = maps
        self.draws = seed.stream("matching")
        self.sampling = sampling_stream(self.draws, seed, "matching", source.device)

    def iterate(self) -> dict[str, Tensor]:
        """One iteration: prepare the networks, match in one of them, let them learn."""
        self.maps.maintain(self.iteration)
        network, regularisation = self.maps.sample()
        figures = self._match(network, regularisation)
        figures |= self.maps.learn(self.source)
        self.iteration += 1
        return figures

    def _match(self, network: Network, regularisation: Tensor | float) -> dict[str, Tensor]:
        drawn = draw(self.source, self.settings, self.draws, self.sampling)
        return self._descend(
            lambda pixels: objective(
                network,
                pixels,
                self.start.labels,
                drawn,
                partition=self.settings.partition,
                regularisation=regularisation,
            )
        )

    def _state(self) -> State:
        return super()._state() | {
            "draws": self.draws.get_state(),
            "sampling": self.sampling.get_state(),
            **with_prefix("maps", self.maps.state()),
        }

    def _restore(self, state: State) -> None:
        super()._restore(state)
        self.sampling.set_state(state["sampling"])
        self.draws.set_state(state["draws"])
        self.maps.restore(of_prefix("maps", state))


def sampling_stream(
    draws: torch.Generator, seed: Seed, name: str, device: torch.device
) -> torch.Generator:
    """The generator that real images are drawn with: `draws` itself, or one on the GPU.

    What decides the course of the computation stays on the host, where reading it costs nothing.
    """
    return draws if device.type == "cpu" else seed.stream(name, device)
