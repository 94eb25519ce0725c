"""Which stretches of the experts' courses a student may be held against."""

from __future__ import annotations

import torch
from torch import Tensor

from fedcondense.config.trajectory import Mtt
from fedcondense.distill.pruning import Segment
from fedcondense.distill.trajectories import ExpertStore
from fedcondense.errors import DivergedError


class Segments:
    """Draws an expert and a start epoch below `max_start`, each pair as likely.

    A window of epochs over which the experts' mean loss does not fall is left out: there is
    nothing to learn from it. So is a pair whose expert stood still in that window, for the loss
    would be 0 / 0. Where no losses were recorded, every window counts as falling.

    Raises:
        DivergedError: nothing is left.
    """

    def __init__(self, experts: ExpertStore, settings: Mtt, device: torch.device) -> None:
        self._experts, self._settings, self._device = experts, settings, device
        courses = [experts.course(number) for number in range(settings.experts.count)]
        self._losses_known = all(course.recorded for course in courses)
        falling = [first for first in range(settings.max_start) if self._falls(first)]
        everything = [(n, first) for n in range(settings.experts.count) for first in falling]
        self.usable = [pair for pair in everything if self._moved(*pair)]
        if not self.usable:
            raise DivergedError(
                "no expert learned anything in the epochs that are matched",
                hint="raise distill.experts.rate or distill.experts.epochs",
            )

    def draw(self, generator: torch.Generator) -> Segment:
        """One of the usable stretches, on the device."""
        number, first = self.usable[int(torch.randint(len(self.usable), (1,), generator=generator))]
        last = first + self._settings.expert_epochs
        return Segment(self._weights(number, first), self._weights(number, last))

    def _weights(self, number: int, epoch: int) -> Tensor:
        return self._experts.weights(number, epoch).to(self._device)

    def _moved(self, number: int, first: int) -> bool:
        last = first + self._settings.expert_epochs
        return not torch.equal(
            self._experts.weights(number, first), self._experts.weights(number, last)
        )

    def _falls(self, first: int) -> bool:
        """Whether the last epoch of the window has a lower mean loss than the one before it.

        Before the first epoch no loss is known: the first epoch's own stands for it.
        """
        last = first + self._settings.expert_epochs
        before = max(first, 1)
        return (
            not self._losses_known
            or last == before
            or self._mean_loss(last) < self._mean_loss(before)
        )

    def _mean_loss(self, epoch: int) -> float:
        numbers = range(self._settings.experts.count)
        losses = [self._experts.course(number).losses[epoch - 1] for number in numbers]
        return float(torch.stack(losses).mean())
