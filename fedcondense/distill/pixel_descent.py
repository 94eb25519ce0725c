"""Pixels that move by gradient descent with momentum: the loop that matching of means shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from fedcondense.config.matching import Matching
from fedcondense.config.study import Study
from fedcondense.distill.averaging import MovingAverage
from fedcondense.distill.checkpoints import Checkpoints, State, of_prefix, with_prefix
from fedcondense.distill.guard import FiniteGuard
from fedcondense.distill.matching import folded_momentum, momentum_step
from fedcondense.distill.refinement import begun
from fedcondense.distill.source import Source
from fedcondense.distill.synthetic import SyntheticSet, initial_set
from fedcondense.learning.randomness import Seed
from fedcondense.progress import Step, Watch

READ_EVERY = 100  # iterations between two looks at figures on a GPU: a look waits for it

# pixels → matching loss and weighted class regularisation
Losses = Callable[[Tensor], tuple[Tensor, Tensor]]


class PixelDescent(ABC):
    """The state of one run; whoever inherits says what an iteration is."""

    def __init__(self, source: Source, study: Study, seed: Seed) -> None:
        self.source = source
        self.settings = study.settings(Matching)
        first = initial_set(
            source,
            study.image,
            start=self.settings.start,
            images_per_class=study.images_per_class,
            partition=self.settings.partition,
            generator=seed.stream("start"),
        )
        self.start = begun(source, first)
        self.pixels = self.start.images.clone()
        self.velocity = torch.zeros_like(self.pixels)
        self.average = MovingAverage(self.settings.averaging)
        self.guard = FiniteGuard(
            source.device, hint="lower distill.image_rate or distill.class_weight"
        )
        self.iteration = 0

    @abstractmethod
    def iterate(self) -> dict[str, Tensor]:
        """One iteration, counted in `iteration`; figures of it, on the device."""

    def run(self, watch: Watch, checkpoints: Checkpoints) -> SyntheticSet:
        """Iterate from where `checkpoints` left off, or from the start, to the end."""
        kept = checkpoints.latest()
        if kept is not None and "pixels" in kept:
            self._restore(kept)
        total, read_every = self.settings.iterations, _reads(self.source.device)
        while self.iteration < total:
            figures = self.iterate()
            if self.iteration % read_every == 0 or self.iteration == total:
                self.guard.check(self.iteration)
                read = {name: float(figure) for name, figure in figures.items()}
                watch(Step("condensing", self.iteration, total, read))
            checkpoints.offer(self._state)
        return SyntheticSet(self.average.value("pixels"), self.start.labels, self.start.images)

    def _descend(self, losses: Losses) -> dict[str, Tensor]:
        """One step down the sum of both losses; what they were."""
        pixels = self.pixels.requires_grad_()
        matched, regularised = losses(pixels)
        (gradient,) = torch.autograd.grad(matched + regularised, pixels)
        self._step(pixels.detach(), gradient)
        return {"matching": matched.detach(), "regularisation": regularised.detach()}

    def _step(self, pixels: Tensor, gradient: Tensor) -> None:
        rate, momentum = self.settings.image_rate, self.settings.image_momentum
        if self.settings.folds_momentum:
            rate, momentum = folded_momentum(rate, momentum, len(self.source.labels))
        moved, velocity = momentum_step(
            pixels, self.velocity, gradient, rate=rate, momentum=momentum
        )
        fine = self.guard.accepts(gradient, moved)
        self.pixels = torch.where(fine, moved, pixels)
        self.velocity = torch.where(fine, velocity, self.velocity)
        self.average.update({"pixels": self.pixels})

    def _state(self) -> State:
        return {
            "iteration": torch.tensor(self.iteration),
            "pixels": self.pixels,
            "velocity": self.velocity,
            **with_prefix("average", self.average.state()),
        }

    def _restore(self, state: State) -> None:
        self.iteration = int(state["iteration"])
        self.pixels = state["pixels"].clone().to(self.source.device)
        self.velocity = state["velocity"].clone().to(self.source.device)
        self.average.restore(of_prefix("average", state))


def _reads(device: torch.device) -> int:
    return 1 if device.type == "cpu" else READ_EVERY
