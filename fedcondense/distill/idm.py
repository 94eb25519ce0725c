"""Improved distribution matching (Zhao et al., CVPR 2023, sections 4.1-4.4, algorithm 1).

All classes of the site pass through one forward. `matching` holds the mathematics, `queue` the
networks; here is the loop, which draws, matches, steps and trains.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from fedcondense.config.methods import Idm
from fedcondense.config.study import Study
from fedcondense.distill.matching import (
    augmented_views,
    class_means,
    class_regularisation,
    folded_momentum,
    matching_loss,
    momentum_step,
)
from fedcondense.distill.queue import ModelQueue, QueuedNetwork
from fedcondense.distill.source import Source
from fedcondense.distill.synthetic import SyntheticSet, initial_set
from fedcondense.errors import DivergedError
from fedcondense.learning.augment import Augmentation, augment, draw_augmentation
from fedcondense.learning.networks import ConvNet, build_network
from fedcondense.learning.randomness import Seed
from fedcondense.progress import Step, Watch, silent

State = dict[str, Tensor]

REAL_IMAGES_AT_ONCE = 128


@runtime_checkable
class Checkpoints(Protocol):
    """Where a long distillation keeps its state; decides itself how often."""

    def latest(self) -> State | None:
        """The newest kept state of the same distillation, if there is one."""

    def offer(self, state: Callable[[], State]) -> None:
        """Keep `state()` if it is time to."""


class NoCheckpoints:
    """Keep nothing."""

    def latest(self) -> State | None:
        """Nothing was kept."""
        return None

    def offer(self, state: Callable[[], State]) -> None:
        """Keep nothing."""


@dataclass
class _Pixels:
    """What the image optimiser moves: pixels (N, C, H, W) and their velocity."""

    value: Tensor
    velocity: Tensor


@dataclass(frozen=True)
class Drawn:
    """Everything random of one matching: per class real images and one shared augmentation."""

    real: list[Float[Tensor, "n c h w"]]
    augmentations: list[Augmentation | None]


def draw(source: Source, settings: Idm, generator: torch.Generator) -> Drawn:
    """Draw the real images and the siamese augmentation of each class."""
    real = [source.draw(label, settings.real_batch, generator) for label in source.labels]
    augmentations = [draw_augmentation(settings.families, generator) for _ in source.labels]
    return Drawn(real, augmentations)


def objective(
    network: ConvNet,
    images: Float[Tensor, "n c h w"],
    labels: Tensor,
    drawn: Drawn,
    *,
    partition: int,
    regularisation: Tensor | float,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Matching loss and weighted class regularisation of all classes (eqs. 2, 4, 5).

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


def distill_idm(
    source: Source,
    study: Study,
    *,
    seed: Seed,
    watch: Watch = silent,
    checkpoints: Checkpoints | None = None,
) -> SyntheticSet:
    """Distill the classes of `source` into `study.images_per_class` images each.

    Returns the last iterate: nothing is chosen by a score. The same seed, study and images on one
    thread give the same bits, with or without an interruption.

    Raises:
        DivergedError: a loss or a pixel is no longer finite.
    """
    return Distillation(source, study, seed).run(watch, checkpoints or NoCheckpoints())


class Distillation:
    """The state of one run of algorithm 1; `distill_idm` is the way to run it."""

    def __init__(self, source: Source, study: Study, seed: Seed) -> None:
        self.source, self.study, self.settings = source, study, study.distill
        self.draws = seed.stream("matching")
        self.queue = ModelQueue(self.settings, self._fresh_network, seed.stream("queue"))
        self.start = initial_set(
            source,
            study.image,
            start=self.settings.start,
            images_per_class=study.images_per_class,
            partition=self.settings.partition,
            generator=seed.stream("start"),
        )
        self.pixels = _Pixels(self.start.images.clone(), torch.zeros_like(self.start.images))
        self.iteration = 0

    def run(self, watch: Watch, checkpoints: Checkpoints) -> SyntheticSet:
        """Iterate from where `checkpoints` left off, or from the start, to the end."""
        kept = checkpoints.latest()
        if kept is not None:
            self._restore(kept)
        while self.iteration < self.settings.iterations:
            figures = self.iterate()
            watch(Step("condensing", self.iteration, self.settings.iterations, figures))
            checkpoints.offer(self._state)
        return SyntheticSet(self.pixels.value, self.start.labels, self.start.images)

    def iterate(self) -> dict[str, float]:
        """One iteration: maintain the queue, match against one network, train some."""
        self.queue.maintain(self.iteration)
        matched, regularised = self._match(self.queue.sample())
        accuracy = self.queue.train(self.source)
        self.iteration += 1
        return {"matching": matched, "regularisation": regularised, "queue_accuracy": accuracy}

    def _match(self, member: QueuedNetwork) -> tuple[float, float]:
        drawn = draw(self.source, self.settings, self.draws)
        pixels = self.pixels.value.requires_grad_()
        matched, regularised = objective(
            member.network,
            pixels,
            self.start.labels,
            drawn,
            partition=self.settings.partition,
            regularisation=self._regularisation(member),
        )
        (gradient,) = torch.autograd.grad(matched + regularised, pixels)
        self._check_finite(gradient)
        self._step(pixels.detach(), gradient)
        return float(matched.detach()), float(regularised.detach())

    def _regularisation(self, member: QueuedNetwork) -> Tensor:
        return self.settings.class_weight * member.accuracy(self.settings.accuracy_reading)

    def _step(self, pixels: Tensor, gradient: Tensor) -> None:
        rate, momentum = self.settings.image_rate, self.settings.image_momentum
        if self.settings.per_class_momentum:
            rate, momentum = folded_momentum(rate, momentum, len(self.source.labels))
        self.pixels = _Pixels(
            *momentum_step(pixels, self.pixels.velocity, gradient, rate=rate, momentum=momentum)
        )

    def _check_finite(self, gradient: Tensor) -> None:
        if not bool(torch.isfinite(gradient).all()):
            raise DivergedError(
                f"the gradient is not finite at iteration {self.iteration}",
                hint="lower distill.image_rate or distill.class_weight",
            )

    def _fresh_network(self, generator: torch.Generator) -> ConvNet:
        return build_network(
            channels=self.study.image.channels,
            classes=len(self.study.classes),
            size=self.study.image.size,
            width=self.study.network.width,
            depth=self.study.network.depth,
            generator=generator,
        ).to(self.source.device)

    def _state(self) -> State:
        queue = {f"queue.{name}": tensor for name, tensor in self.queue.state().items()}
        return {
            "iteration": torch.tensor(self.iteration),
            "draws": self.draws.get_state(),
            "pixels": self.pixels.value,
            "velocity": self.pixels.velocity,
            **queue,
        }

    def _restore(self, state: State) -> None:
        self.iteration = int(state["iteration"])
        self.draws.set_state(state["draws"])
        self.pixels = _Pixels(state["pixels"].clone(), state["velocity"].clone())
        self.queue.restore(
            {name[6:]: tensor for name, tensor in state.items() if name.startswith("queue.")}
        )
