from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from fedcondense.data.dataset import LabeledImages
from fedcondense.site import checkpoint
from fedcondense.site.checkpoint import FileCheckpoints, identity_of

MINE, OTHER = "ab" * 32, "cd" * 32
STATE = {
    "iteration": torch.tensor(7),
    "draws": torch.Generator().get_state(),
    "pixels": torch.linspace(-4, 4, 12).reshape(3, 4).T,
    "nothing": torch.empty(0, 2),
}


def images(pixel: int = 0, label: int = 0) -> LabeledImages:
    pixels = torch.full((2, 1, 8, 8), pixel, dtype=torch.uint8)
    return LabeledImages(pixels, torch.tensor([0, label]), ("a", "b"), ("p", "q"), None, None)


def test_a_state_comes_back_bit_by_bit(tmp_path):
    FileCheckpoints(tmp_path / "c", MINE, interval=0.0).offer(lambda: STATE)

    state = FileCheckpoints(tmp_path / "c", MINE).latest()

    assert state is not None
    assert state.keys() == STATE.keys()
    for name, tensor in STATE.items():
        assert_close(state[name], tensor, rtol=0, atol=0)


def test_a_state_that_came_back_may_be_written_to(tmp_path):
    keeper = FileCheckpoints(tmp_path / "c", MINE, interval=0.0)
    keeper.offer(lambda: STATE)

    state = keeper.latest()
    assert state is not None
    state["pixels"].zero_()

    assert_close(keeper.latest(), STATE)


def test_the_newest_state_is_kept(tmp_path):
    keeper = FileCheckpoints(tmp_path / "c", MINE, interval=0.0)

    for iteration in range(3):
        keeper.offer(lambda: {"iteration": torch.tensor(iteration)})  # noqa: B023 - called at once

    assert keeper.latest() == {"iteration": torch.tensor(2)}


def test_there_is_no_state_before_the_first(tmp_path):
    assert FileCheckpoints(tmp_path / "c", MINE).latest() is None


def test_the_state_of_another_computation_is_passed_over(tmp_path):
    FileCheckpoints(tmp_path / "c", MINE, interval=0.0).offer(lambda: STATE)

    assert FileCheckpoints(tmp_path / "c", OTHER).latest() is None


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: b"", lambda data: b"\xff" * 99]
)
def test_a_damaged_state_is_passed_over(tmp_path, damage):
    keeper = FileCheckpoints(tmp_path / "c", MINE, interval=0.0)
    keeper.offer(lambda: STATE)
    (tmp_path / "c").write_bytes(damage((tmp_path / "c").read_bytes()))

    assert keeper.latest() is None


def test_a_state_is_made_at_most_once_in_an_interval(tmp_path, monkeypatch):
    now, made = 0.0, []
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now)
    keeper = FileCheckpoints(tmp_path / "c", MINE, interval=60.0)

    for now in (1.0, 59.9, 60.0, 61.0, 119.9, 120.0):
        keeper.offer(lambda: (made.append(now), {"now": torch.tensor(now)})[1])  # noqa: B023

    assert made == [60.0, 120.0]


def test_a_forgotten_state_is_gone(tmp_path):
    keeper = FileCheckpoints(tmp_path / "c", MINE, interval=0.0)
    keeper.offer(lambda: STATE)

    keeper.clear()
    keeper.clear()

    assert keeper.latest() is None


def test_a_computation_is_known_by_study_seed_images_and_labels():
    same = [identity_of("study", 1, images()) for _ in range(2)]
    others = {
        identity_of("other", 1, images()),
        identity_of("study", 2, images()),
        identity_of("study", 1, images(pixel=1)),
        identity_of("study", 1, images(label=1)),
    }

    assert same[0] == same[1]
    assert len(others | set(same)) == 5
