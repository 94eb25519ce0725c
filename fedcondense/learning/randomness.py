"""Reproducible named streams, and secret noise, kept apart."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

MERSENNE_WORDS = 624
MERSENNE_STATE = slice(24, 24 + 8 * MERSENNE_WORDS)  # of a saved generator, in bytes; 8 to a word


@dataclass(frozen=True)
class Seed:
    """A number from which independent streams are drawn by name.

    Equal seeds and names give equal streams. Never a source of secret noise: a seeded CPU
    generator has only 32 bits of state to guess.
    """

    value: int

    def child(self, name: str) -> Seed:
        """The seed of one named part, such as a site of a scenario."""
        digest = hashlib.sha256(f"fedcondense/{self.value}/{name}".encode()).digest()
        return Seed(int.from_bytes(digest[:8], "big") >> 1)

    def stream(self, name: str, device: torch.device | str = "cpu") -> torch.Generator:
        """A fresh generator for the use called `name`, on the CPU unless said otherwise."""
        return torch.Generator(device).manual_seed(self.child(name).value)


class SecretGenerator(torch.Generator):
    """A generator that is never copied or pickled; nobody can draw its numbers again."""

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret generator is never copied, pickled or kept")


def secret_generator() -> torch.Generator:
    """A CPU generator whose whole state comes from the operating system.

    For sampling, and for noise that libraries draw. A seed would not do: of its 64 bits a CPU
    generator keeps 32, which can be searched. A Mersenne Twister is no cipher: whoever sees its
    numbers as drawn can tell the next ones, so they never leave the site.
    """
    generator = SecretGenerator()
    state = torch.Generator().get_state().numpy()  # as freshly seeded: the first draw mixes all
    words = np.frombuffer(os.urandom(4 * MERSENNE_WORDS), dtype=np.uint32)
    state[MERSENNE_STATE] = words.astype(np.uint64).view(np.uint8)
    generator.set_state(torch.from_numpy(state))
    return generator


def secret_normal(*shape: int) -> Float64[Tensor, ...]:
    """Standard normal numbers, each from 128 bits of the operating system; there is no state.

    Box & Muller 1958 in float64. The smallest uniform is 2^-53, so no number is beyond 8.6: a
    normal one is with probability 1e-17.
    """
    count = int(np.prod(shape))
    uniform = np.frombuffer(os.urandom(16 * count), dtype=np.uint64).reshape(2, count)
    radius, angle = ((uniform >> np.uint64(11)) + 1.0) * 2.0**-53  # in (0, 1]: 0 has no logarithm
    normal = np.sqrt(-2 * np.log(radius)) * np.cos(2 * np.pi * angle)
    return torch.from_numpy(normal).reshape(shape)
