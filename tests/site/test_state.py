from __future__ import annotations

import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedcondense.data.dataset import LabeledImages
from fedcondense.distill.synthetic import SyntheticSet
from fedcondense.site import state as state_module
from fedcondense.site.journal import Journal
from fedcondense.site.state import RoundState, local_figures

DIGEST = "0" * 64
TRY_THE_LOCK = """
import fcntl, sys
with open(sys.argv[1], "w") as file:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(7)
"""


@pytest.fixture
def state(tmp_path) -> RoundState:
    return RoundState(tmp_path, DIGEST, 1)


def made() -> SyntheticSet:
    pixels = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return SyntheticSet(pixels, torch.tensor([0, 2]), torch.zeros(2, 1, 8, 8))


def condensed() -> LabeledImages:
    labels = torch.tensor([0, 0, 0, 2])
    groups = ("p", "p", "q", "r")
    pixels = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    return LabeledImages(pixels, labels, ("a", "b", "c"), groups, None, None)


def try_the_lock(state: RoundState) -> int:
    """Exit code of another process that asks for the lock: 0 got it, 7 it is held."""
    command = [sys.executable, "-c", TRY_THE_LOCK, str(state.folder / "lock")]
    return subprocess.run(command, check=False).returncode


def test_a_round_has_its_own_folder(tmp_path):
    assert RoundState(tmp_path, DIGEST, 12).folder == tmp_path / "runs" / DIGEST / "round-012"


def test_the_lock_keeps_another_process_out_until_it_is_left(state):
    with state.lock():
        inside = try_the_lock(state)
    outside = try_the_lock(state)

    assert (inside, outside) == (7, 0)


def test_the_lock_is_left_by_an_error_too(state):
    with pytest.raises(RuntimeError), state.lock():
        raise RuntimeError

    assert try_the_lock(state) == 0


def test_what_a_killed_process_left_half_written_is_gone_with_the_next(state):
    with state.lock():
        left = state.folder / ".checkpoint.safetensors.0123456789ab.tmp"
        left.touch()
        os.utime(left, (0, 0))

    with state.lock():
        assert not left.exists()


@pytest.mark.parametrize("journal_first", [False, True])
def test_nobody_else_can_look_into_the_folder_of_a_round(state, journal_first):
    if journal_first:
        Journal(state.journal)
    with state.lock():
        pass

    assert stat.S_IMODE(state.folder.stat().st_mode) == 0o700


def test_a_kept_set_comes_back_bit_by_bit(state):
    kept = made()

    state.keep(kept, local_figures(condensed(), kept, began=0.0))
    arrays = state.synthetic()

    np.testing.assert_array_equal(arrays["images"], kept.images.numpy(), strict=True)
    np.testing.assert_array_equal(arrays["labels"], kept.labels.numpy(), strict=True)
    np.testing.assert_array_equal(arrays["started_from"], kept.started_from.numpy(), strict=True)


def test_what_a_method_learned_beside_pixels_comes_back_too(state):
    soft = torch.tensor([[0.75, 0.25, 0.0], [0.125, 0.25, 0.625]])
    kept = replace(made(), soft=soft, student_rate=0.0123)

    state.keep(kept, local_figures(condensed(), kept, began=0.0))
    arrays = state.synthetic()

    np.testing.assert_array_equal(arrays["soft"], soft.numpy(), strict=True)
    assert float(arrays["student_rate"]) == 0.0123


def test_what_was_not_learned_is_not_there(state):
    state.keep(made(), local_figures(condensed(), made(), began=0.0))

    assert set(state.synthetic()) == {"images", "labels", "started_from"}


def test_the_figures_are_counted_by_hand(state):
    figures = local_figures(condensed(), made(), began=0.0)

    state.keep(made(), figures)

    assert state.figures() == figures
    assert (figures.images, figures.groups, figures.synthetic_images) == (4, 3, 2)
    assert figures.class_counts == {"a": 3, "b": 0, "c": 1}
    assert figures.left_out == ("b",)
    assert figures.real_bytes == 4 * 8 * 8


def test_a_set_is_finished_when_its_figures_are_there_and_not_before(state, monkeypatch):
    def crash(*args: object) -> None:
        raise KeyboardInterrupt

    figures = local_figures(condensed(), made(), began=0.0)
    with monkeypatch.context() as patch:
        patch.setattr(state_module, "write_atomically", crash)
        with pytest.raises(KeyboardInterrupt):
            state.keep(made(), figures)
    before = state.finished()

    state.keep(made(), figures)

    assert (before, state.finished()) == (False, True)


def test_bytes_are_sealed_once_for_a_run(state):
    first = state.sealed_once("run", lambda: b"first")
    second = state.sealed_once("run", lambda: b"second")
    other = state.sealed_once("other", lambda: b"other")

    assert (first, second, other) == (b"first", b"first", b"other")
    assert stat.S_IMODE(state.sealed("run").stat().st_mode) == 0o600


def test_nothing_is_kept_of_bytes_that_could_not_be_sealed(state):
    def fail() -> bytes:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        state.sealed_once("run", fail)

    assert not state.sealed("run").exists()
    assert state.sealed_once("run", lambda: b"later") == b"later"


def test_the_newest_record_is_kept(state):
    state.keep_record({"decision": "refused"})
    state.keep_record({"decision": "released"})

    assert state.record() == {"decision": "released"}


def test_journal_and_checkpoint_lie_in_the_rounds_folder(state):
    folders = {path.parent for path in (state.journal, state.checkpoint)}

    assert folders == {Path(os.fspath(state.folder))}
