"""What a method has of patients under differential privacy: never an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NoReturn

import torch

from fedcondense.errors import InternalError
from fedcondense.learning.refinement import FIRST_ROUND, Refinement


class PrivateSource:
    """A source that names classes and refuses every image; each mode adds what it grants.

    `labels` are the classes that are condensed, by noised counts. `readings` is the list in which
    `UnitImages` names every reading; no image is reachable from it.
    """

    mode: ClassVar[str]

    def __init__(
        self,
        labels: tuple[int, ...],
        readings: Sequence[str],
        device: torch.device,
        refinement: Refinement = FIRST_ROUND,
    ) -> None:
        self._labels, self._readings, self._device = labels, readings, device
        self.refinement = refinement

    @property
    def labels(self) -> tuple[int, ...]:
        """The classes that are condensed, by noised counts."""
        return self._labels

    @property
    def device(self) -> torch.device:
        """Where all is computed."""
        return self._device

    @property
    def accesses(self) -> int:
        """How often mechanisms have read patients; the gate compares it with charged rows."""
        return len(self._readings)

    def draw(self, label: int, count: int, generator: torch.Generator) -> NoReturn:
        """Refused: images are not granted."""
        raise self._not_granted()

    def draw_batch(self, count: int, generator: torch.Generator, *, balanced: bool) -> NoReturn:
        """Refused: images are not granted."""
        raise self._not_granted()

    def epoch(self, batch: int, generator: torch.Generator, *, balanced: bool) -> NoReturn:
        """Refused at once, not with the first batch."""
        raise self._not_granted()

    def _not_granted(self) -> InternalError:
        return InternalError(
            f"a method asked for patient images, which mode {self.mode} does not grant",
            hint="report this error",
        )
