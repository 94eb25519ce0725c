from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedcondense.distill.segments import Segments
from fedcondense.distill.trajectories import Course, Expert, Shelf
from fedcondense.errors import DivergedError

from .conftest import small_study

CPU = torch.device("cpu")


def shelf_of(*losses: list[float], still: tuple[int, ...] = ()) -> Shelf:
    """Experts of two weights, (expert, epoch); those in `still` stay where they began."""
    shelf = Shelf()
    for number, course in enumerate(losses):
        epochs = torch.arange(len(course) + 1.0) * (number not in still)
        weights = torch.stack([torch.full_like(epochs, float(number)), epochs], dim=1)
        shelf.keep(number, Expert(weights, Course(torch.tensor(course), torch.zeros(len(course)))))
    return shelf


def segments_of(shelf: Shelf, *, count: int, epochs: int, span: int, below: int) -> Segments:
    study = small_study(
        "mtt",
        expert_epochs=span,
        max_start=below,
        experts={"count": count, "epochs": epochs},
    )
    return Segments(shelf, study.distill, CPU)


FALLING = [4.0, 3.0, 2.0, 1.0]


def test_every_expert_and_every_start_below_the_largest_is_usable():
    segments = segments_of(shelf_of(FALLING, FALLING), count=2, epochs=4, span=2, below=3)

    assert segments.usable == [(n, first) for n in (0, 1) for first in (0, 1, 2)]


@given(seed=st.integers(0, 1000))
def test_a_segment_reaches_from_a_start_to_so_many_epochs_later(seed):
    segments = segments_of(shelf_of(FALLING, FALLING), count=2, epochs=4, span=2, below=3)

    segment = segments.draw(torch.Generator().manual_seed(seed))

    assert segment.start[1] < 3
    assert (segment.target - segment.start).tolist() == [0, 2]


def test_drawing_reaches_every_usable_stretch():
    segments = segments_of(shelf_of(FALLING, FALLING), count=2, epochs=4, span=2, below=3)
    generator = torch.Generator().manual_seed(0)

    drawn = [tuple(segments.draw(generator).start.tolist()) for _ in range(120)]

    assert set(drawn) == {(n, first) for n in (0.0, 1.0) for first in (0.0, 1.0, 2.0)}
    assert min(drawn.count(pair) for pair in set(drawn)) > 8  # 20 each on average


def test_the_largest_start_itself_is_never_drawn():
    segments = segments_of(shelf_of(FALLING), count=1, epochs=4, span=1, below=1)
    generator = torch.Generator().manual_seed(0)

    assert {float(segments.draw(generator).start[1]) for _ in range(20)} == {0}


def test_a_window_over_which_the_mean_loss_rises_is_left_out():
    # mean losses 2, 3, 1.5: the window of epochs 1..2 rises, that of 2..3 falls
    shelf = shelf_of([2.0, 5.0, 2.0], [2.0, 1.0, 1.0])

    segments = segments_of(shelf, count=2, epochs=3, span=1, below=3)

    assert segments.usable == [(0, 0), (0, 2), (1, 0), (1, 2)]


def test_a_window_over_which_the_mean_loss_stays_is_left_out():
    segments = segments_of(shelf_of([2.0, 2.0, 1.0]), count=1, epochs=3, span=1, below=3)

    assert segments.usable == [(0, 0), (0, 2)]


def test_a_window_of_a_loss_that_is_no_number_is_left_out():
    segments = segments_of(shelf_of([2.0, float("nan"), 1.0]), count=1, epochs=3, span=1, below=3)

    assert segments.usable == [(0, 0)]


def test_an_expert_that_stood_still_is_left_out():
    shelf = shelf_of(FALLING, FALLING, still=(0,))

    segments = segments_of(shelf, count=2, epochs=4, span=2, below=2)

    assert segments.usable == [(1, 0), (1, 1)]


@pytest.mark.parametrize(
    "shelf",
    [shelf_of(FALLING, FALLING, still=(0, 1)), shelf_of([1.0, 2.0, 3.0, 4.0], FALLING[::-1])],
    ids=["none moved", "none learned"],
)
def test_experts_that_learned_nothing_are_a_named_error(shelf):
    with pytest.raises(DivergedError) as caught:
        segments_of(shelf, count=2, epochs=4, span=2, below=2)

    assert caught.value.message == "no expert learned anything in the epochs that are matched"
    assert caught.value.hint == "raise distill.experts.rate or distill.experts.epochs"


def test_where_no_losses_were_recorded_every_window_in_which_an_expert_moved_is_usable():
    shelf = shelf_of(FALLING, [1.0, 2.0, 3.0, 4.0], FALLING, still=(2,))
    unrecorded = Shelf()
    for number in (0, 1, 2):
        weights = torch.stack([shelf.weights(number, epoch) for epoch in range(5)])
        unrecorded.keep(number, Expert(weights, Course.unrecorded()))

    segments = segments_of(unrecorded, count=3, epochs=4, span=2, below=3)

    assert segments.usable == [(n, first) for n in (0, 1) for first in (0, 1, 2)]
