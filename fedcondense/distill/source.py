"""What a method may ask of patient data, and the plain form that answers it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from fedcondense.config.study import ImageSpec
from fedcondense.learning.pixels import normalise


@runtime_checkable
class Source(Protocol):
    """A method's only handle on patients."""

    @property
    def labels(self) -> tuple[int, ...]:
        """The classes that this site condenses, in the study's numbering."""

    @property
    def device(self) -> torch.device:
        """Where drawn images lie, and so where all is computed."""

    def draw(self, label: int, count: int, generator: torch.Generator) -> Float[Tensor, "n c h w"]:
        """`count` different images of one class, or all of them where it has fewer."""

    def draw_batch(
        self, count: int, generator: torch.Generator, *, balanced: bool
    ) -> tuple[Float[Tensor, "n c h w"], Int64[Tensor, " n"]]:
        """`count` different images over all classes with their labels, or all there are.

        `balanced` takes equally many of each class, again and again from a small one.
        """


class PlainSource:
    """Patient images answered as they are; the mode without differential privacy."""

    def __init__(
        self,
        images: UInt8[Tensor, "n c h w"],
        labels: Int64[Tensor, " n"],
        spec: ImageSpec,
        *,
        device: str = "cpu",
    ) -> None:
        self.device = _device(device)
        self._images = images.to(self.device)
        self._labels = labels
        self._spec = spec
        self._rows = {
            int(label): torch.nonzero(labels == label).flatten() for label in labels.unique()
        }

    @property
    def labels(self) -> tuple[int, ...]:
        """The classes that have images, ascending."""
        return tuple(self._rows)

    def draw(self, label: int, count: int, generator: torch.Generator) -> Float[Tensor, "n c h w"]:
        """See `Source.draw`."""
        rows = self._rows[label]
        if count < len(rows):
            rows = rows[torch.randperm(len(rows), generator=generator)[:count]]
        return normalise(self._images[rows], self._spec)

    def draw_batch(
        self, count: int, generator: torch.Generator, *, balanced: bool
    ) -> tuple[Float[Tensor, "n c h w"], Int64[Tensor, " n"]]:
        """See `Source.draw_batch`."""
        rows = (
            self._balanced_rows(count, generator)
            if balanced
            else torch.randperm(len(self._labels), generator=generator)[:count]
        )
        return normalise(self._images[rows], self._spec), self._labels[rows].to(self.device)

    def _balanced_rows(self, count: int, generator: torch.Generator) -> Tensor:
        share = -(-count // len(self._rows))
        parts = []
        for rows in self._rows.values():
            times = -(-share // len(rows))
            order = torch.cat(
                [torch.randperm(len(rows), generator=generator) for _ in range(times)]
            )
            parts.append(rows[order[:share]])
        together = torch.cat(parts)
        # shuffled before the cut, so that no class is always the one that loses a place
        return together[torch.randperm(len(together), generator=generator)[:count]]


def _device(name: str) -> torch.device:
    """`auto` is the first CUDA device where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)
