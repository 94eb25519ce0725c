from __future__ import annotations

import copy
import os
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedcondense.learning.randomness import (
    MERSENNE_STATE,
    Seed,
    secret_generator,
    secret_normal,
)


@given(value=st.integers(0, 2**62), name=st.text(max_size=20))
def test_equal_seeds_and_names_give_equal_streams(value, name):
    one, other = Seed(value).stream(name), Seed(value).stream(name)

    assert torch.equal(torch.randn(4, generator=one), torch.randn(4, generator=other))


def test_another_name_gives_another_stream():
    start, queue = Seed(0).stream("start"), Seed(0).stream("queue")

    assert not torch.equal(torch.randn(4, generator=start), torch.randn(4, generator=queue))


def test_drawing_a_stream_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()

    torch.randn(3, generator=Seed(1).stream("pixels"))

    assert torch.equal(before, torch.random.get_rng_state())


def test_the_seed_of_a_part_is_the_one_that_was_published():
    # derivation: first 8 bytes of sha256(b"fedcondense/0/site-1"), shifted right by one
    assert Seed(0).child("site-1").value == 7293752372811741213


def state_words(generator: torch.Generator) -> np.ndarray:
    """The 624 words of a Mersenne Twister, as PyTorch saves them."""
    return generator.get_state().numpy()[MERSENNE_STATE].copy().view(np.uint64)


def test_a_seeded_generator_has_32_bits_to_guess():
    # why secret noise needs more than a seed, however long
    one, other = (torch.Generator().manual_seed(seed) for seed in (7, 7 + 2**32))

    assert torch.equal(torch.randn(9, generator=one), torch.randn(9, generator=other))


def test_a_secret_generator_has_624_random_words_that_no_other_shares():
    words = np.stack([state_words(secret_generator()) for _ in range(8)])

    assert words.shape == (8, 624)
    assert words.max() < 2**32
    assert len(np.unique(words)) > 8 * 624 - 10
    ones = np.unpackbits(words.astype(np.uint32).view(np.uint8)).sum()
    bits = words.size * 32
    assert abs(ones - bits / 2) < 6 * np.sqrt(bits) / 2


def test_a_secret_generator_is_the_mersenne_twister_of_those_words():
    generator = secret_generator()
    reference = random.Random()
    words = tuple(int(word) for word in state_words(generator))
    reference.setstate((3, (*words, 624), None))  # Python's own implementation

    drawn = torch.empty(2_000, dtype=torch.int64).random_(0, 2**24, generator=generator)

    assert drawn.tolist() == [reference.getrandbits(32) % 2**24 for _ in range(2_000)]


def test_every_word_of_the_system_reaches_the_stream(monkeypatch):
    def stream(data: bytes) -> torch.Tensor:
        monkeypatch.setattr(os, "urandom", lambda count: data[:count])
        return torch.empty(700, dtype=torch.int64).random_(generator=secret_generator())

    data = os.urandom(4 * 624)
    first = stream(data)

    for word in (1, 300, 623):
        changed = bytearray(data)
        changed[4 * word] ^= 1
        assert not torch.equal(stream(bytes(changed)), first)


@pytest.mark.parametrize(
    "keep", [copy.copy, copy.deepcopy, lambda generator: generator.__reduce_ex__(4)]
)
def test_a_secret_generator_is_never_kept(keep):
    with pytest.raises(TypeError, match="never copied, pickled or kept"):
        keep(secret_generator())


def test_secret_numbers_are_standard_normal():
    numbers = secret_normal(250, 400)

    assert numbers.shape == (250, 400)
    assert numbers.dtype == torch.float64
    squares = float(numbers.square().sum())
    low, high = stats.chi2.ppf([1e-7, 1 - 1e-7], df=numbers.numel())
    assert low < squares < high
    assert stats.kstest(numbers.flatten().numpy(), "norm").pvalue > 1e-7
    assert len(numbers.unique()) == numbers.numel()


def test_neighbouring_secret_numbers_know_nothing_of_each_other():
    numbers = secret_normal(100_000).numpy()

    for lag in (1, 2, 50_000):
        assert abs(np.mean(numbers[lag:] * numbers[:-lag])) < 6 / np.sqrt(len(numbers) - lag)


@pytest.mark.parametrize(
    ("byte", "expected"),
    [
        (b"\x00", 8.571674348652905),  # sqrt(2 * 53 * ln 2), the largest there is
        (b"\xff", 0.0),  # the logarithm of 1
        (
            b"\x80",
            -1.1739920557986379,
        ),  # sqrt(-2 ln u) cos(2 pi u), u = 0x80808080808080/2^56 = .50196
    ],
)
def test_secret_numbers_are_those_of_box_and_muller(byte, expected, monkeypatch):
    monkeypatch.setattr(os, "urandom", lambda count: count * byte)

    assert float(secret_normal(1)) == pytest.approx(expected, rel=1e-9)


def test_every_secret_number_takes_16_new_bytes_of_the_system(monkeypatch):
    asked = []
    fresh = os.urandom
    monkeypatch.setattr(os, "urandom", lambda count: asked.append(count) or fresh(count))

    secret_normal(2, 3)

    assert asked == [96]
