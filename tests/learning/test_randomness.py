from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from fedcondense.learning.randomness import Seed


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
