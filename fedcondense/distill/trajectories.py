"""The recorded courses of experts: flat weights by epoch, and where they are kept.

One store of experts serves trajectory matching, the expert queue of IDM and herding. It never
leaves the site.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Layout:
    """Where each named tensor of a network lies in the flat vector of all its parameters."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, network: nn.Module) -> Layout:
        """The layout of a network's parameters, in its own order."""
        named = dict(network.named_parameters())
        return cls(tuple(named), tuple(tuple(p.shape) for p in named.values()))

    @property
    def sizes(self) -> list[int]:
        """Numbers of each tensor."""
        return [prod(shape) for shape in self.shapes]

    def tensors(self, flat: Float[Tensor, " p"]) -> dict[str, Tensor]:
        """Views of the vector by name; gradients pass."""
        parts = flat.split(self.sizes)
        return {n: p.view(s) for n, p, s in zip(self.names, parts, self.shapes, strict=True)}

    def fill(self, network: nn.Module, flat: Float[Tensor, " p"]) -> None:
        """Overwrite a network's parameters."""
        with torch.no_grad():
            for parameter, values in zip(
                network.parameters(), self.tensors(flat).values(), strict=True
            ):
                parameter.copy_(values)


def flat_weights(network: nn.Module) -> Float[Tensor, " p"]:
    """A copy of all parameters as one vector on the CPU.

    A copy: a detached tensor on the CPU shares memory with the parameter, and all snapshots would
    be the last one.
    """
    return torch.cat([p.detach().flatten() for p in network.parameters()]).cpu().clone()


@dataclass(frozen=True)
class Course:
    """Mean loss and accuracy (0..1) of an expert on its own batches, epoch by epoch.

    Both are empty where nobody recorded them.
    """

    losses: Float[Tensor, " epochs"]
    accuracies: Float[Tensor, " epochs"]

    @classmethod
    def unrecorded(cls) -> Course:
        """A course of which nothing is known but the weights."""
        return cls(torch.empty(0), torch.empty(0))

    @property
    def recorded(self) -> bool:
        """Whether losses and accuracies are known."""
        return len(self.losses) > 0


@dataclass(frozen=True)
class Expert:
    """A recorded expert: flat weights before the first epoch and after each, and its course."""

    weights: Float[Tensor, "snapshots p"]
    course: Course


@runtime_checkable
class ExpertStore(Protocol):
    """Where trained experts are kept, by number from 0; weights are read one epoch at a time."""

    def has(self, number: int) -> bool:
        """Whether that expert is trained."""

    def keep(self, number: int, expert: Expert) -> None:
        """Keep a trained expert."""

    def weights(self, number: int, epoch: int) -> Float[Tensor, " p"]:
        """Flat weights after `epoch` epochs, on the CPU."""

    def course(self, number: int) -> Course:
        """How it learned."""


class Shelf:
    """A store in memory."""

    def __init__(self) -> None:
        self._experts: dict[int, Expert] = {}

    def has(self, number: int) -> bool:
        """See `ExpertStore.has`."""
        return number in self._experts

    def keep(self, number: int, expert: Expert) -> None:
        """See `ExpertStore.keep`."""
        self._experts[number] = expert

    def weights(self, number: int, epoch: int) -> Float[Tensor, " p"]:
        """See `ExpertStore.weights`."""
        return self._experts[number].weights[epoch]

    def course(self, number: int) -> Course:
        """See `ExpertStore.course`."""
        return self._experts[number].course
