"""What a method may ask of patient data, and the plain form that answers it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from fedcondense.config.study import ImageSpec
from fedcondense.errors import SettingsError
from fedcondense.learning.feature_maps import PublicMap
from fedcondense.learning.pixels import normalise
from fedcondense.learning.refinement import FIRST_ROUND, Refinement


@runtime_checkable
class Batches(Protocol):
    """Labelled images that a network may be trained on."""

    def draw_batch(
        self, count: int, generator: torch.Generator, *, balanced: bool
    ) -> tuple[Float[Tensor, "n c h w"], Int64[Tensor, " n"]]:
        """`count` different images over all classes with their labels, or all there are.

        `balanced` takes equally many of each class, again and again from a small one.
        """


@runtime_checkable
class Source(Batches, Protocol):
    """A method's only handle on patients.

    A generator lives on the CPU or on `device`.
    """

    @property
    def labels(self) -> tuple[int, ...]:
        """The classes that this site condenses, in the study's numbering."""

    @property
    def device(self) -> torch.device:
        """Where drawn images lie, and so where all is computed."""

    def draw(self, label: int, count: int, generator: torch.Generator) -> Float[Tensor, "n c h w"]:
        """`count` different images of one class, or all of them where it has fewer."""

    def epoch(
        self, batch: int, generator: torch.Generator, *, balanced: bool
    ) -> Iterator[tuple[Float[Tensor, "n c h w"], Int64[Tensor, " n"]]]:
        """Every image once in random batches, the last one smaller; with their labels.

        `balanced` gives as many batches of `draw_batch` instead.
        """


@runtime_checkable
class Embedded(Protocol):
    """Classes as means of unit vectors, in place of images."""

    @property
    def maps(self) -> Sequence[PublicMap]:
        """What images were embedded by."""

    @property
    def targets(self) -> Float[Tensor, "maps classes d"]:
        """The mean of each class in each map; an estimate, so it may be longer than 1."""


@runtime_checkable
class EmbeddedSource(Source, Protocol):
    """A source that grants class embeddings; it need not grant anything else."""

    def class_embeddings(self) -> Embedded:
        """Means of `labels`, the same at every call."""


class PlainSource:
    """Patient images answered as they are; the mode without differential privacy."""

    def __init__(
        self,
        images: UInt8[Tensor, "n c h w"],
        labels: Int64[Tensor, " n"],
        spec: ImageSpec,
        *,
        device: str = "cpu",
        refinement: Refinement = FIRST_ROUND,
    ) -> None:
        self.device, self.refinement = device_of(device), refinement
        self._images = images.to(self.device)
        self._labels = labels.to(self.device)
        self._spec = spec
        self._rows = {
            int(label): torch.nonzero(self._labels == label).flatten() for label in labels.unique()
        }

    @property
    def labels(self) -> tuple[int, ...]:
        """The classes that have images, ascending."""
        return tuple(self._rows)

    def draw(self, label: int, count: int, generator: torch.Generator) -> Float[Tensor, "n c h w"]:
        """See `Source.draw`."""
        rows = self._rows[label]
        if count < len(rows):
            rows = rows[_shuffled(len(rows), generator)[:count]]
        return self._images_at(rows)

    def draw_batch(
        self, count: int, generator: torch.Generator, *, balanced: bool
    ) -> tuple[Float[Tensor, "n c h w"], Int64[Tensor, " n"]]:
        """See `Source.draw_batch`."""
        rows = (
            self._balanced_rows(count, generator)
            if balanced
            else _shuffled(len(self._labels), generator)[:count]
        )
        return self._images_at(rows), self._labels[rows]

    def epoch(
        self, batch: int, generator: torch.Generator, *, balanced: bool
    ) -> Iterator[tuple[Float[Tensor, "n c h w"], Int64[Tensor, " n"]]]:
        """See `Source.epoch`."""
        if balanced:
            for _ in range(-(-len(self._labels) // batch)):
                yield self.draw_batch(batch, generator, balanced=True)
            return
        order = _shuffled(len(self._labels), generator)
        for rows in order.split(batch):
            yield self._images_at(rows), self._labels[rows]

    def _images_at(self, rows: Tensor) -> Float[Tensor, "n c h w"]:
        return normalise(self._images[rows], self._spec)

    def _balanced_rows(self, count: int, generator: torch.Generator) -> Tensor:
        share = -(-count // len(self._rows))
        parts = []
        for rows in self._rows.values():
            times = -(-share // len(rows))
            order = torch.cat([_shuffled(len(rows), generator) for _ in range(times)])
            parts.append(rows[order[:share]])
        together = torch.cat(parts)
        # shuffled before the cut, so that no class is always the one that loses a place
        return together[_shuffled(len(together), generator)[:count]]


def _shuffled(n: int, generator: torch.Generator) -> Tensor:
    """A random order of `n` rows, drawn where the generator lives: no waiting for a GPU."""
    return torch.randperm(n, generator=generator, device=generator.device)


def device_of(name: str) -> torch.device:
    """`auto` is the first CUDA device where there is one.

    Raises:
        SettingsError: there is no such device.
    """
    found = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda:0" if found else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and device.index >= found:
        raise SettingsError(
            f"device: {name} is not there, {found} CUDA devices are",
            hint='name another device, or "auto"',
        )
    return device
