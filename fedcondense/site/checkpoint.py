"""The state of a long distillation on disk, so that a killed site goes on where it was."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError

from fedcondense.config.study import Study
from fedcondense.data.dataset import LabeledImages
from fedcondense.distill.checkpoints import NoCheckpoints
from fedcondense.files.storage import read_arrays, write_arrays
from fedcondense.learning.randomness import Seed

State = dict[str, torch.Tensor]


class FileCheckpoints:
    """Keeps the newest state, at most once in `interval` seconds.

    A state belongs to one `identity` (study, images, seed): that of another is passed over, for
    going on from it would mix two computations.
    """

    def __init__(self, path: Path, identity: str, *, interval: float = 60.0) -> None:
        self._path = path
        self._identity = np.frombuffer(bytes.fromhex(identity), dtype=np.uint8)
        self._interval = interval
        self._kept = time.monotonic()

    def latest(self) -> State | None:
        """The newest whole state of this identity."""
        try:
            arrays = read_arrays(self._path)
        except (FileNotFoundError, SafetensorError):
            return None
        if not np.array_equal(arrays.pop("identity", np.empty(0)), self._identity):
            return None
        return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}

    def offer(self, state: Callable[[], State]) -> None:
        """Write `state()` if the interval has passed."""
        if time.monotonic() - self._kept < self._interval:
            return
        arrays = {name: tensor.cpu().numpy() for name, tensor in state().items()}
        write_arrays(self._path, {**arrays, "identity": self._identity})
        self._kept = time.monotonic()

    def clear(self) -> None:
        """Forget the state; the result is kept elsewhere."""
        self._path.unlink(missing_ok=True)


class NothingKept(NoCheckpoints):
    """Differential privacy: what was drawn with secret noise is never taken up again."""

    def clear(self) -> None:
        """There is nothing to forget."""


def checkpoints_of(
    path: Path, study: Study, seed: Seed, images: LabeledImages, *, begins_with: str = ""
) -> FileCheckpoints | NothingKept:
    """Where the study's distillation of these images keeps its state.

    `begins_with` is a digest of study and beginning; left out, the study's own.
    """
    if study.privacy.mode != "none":
        return NothingKept()
    return FileCheckpoints(path, identity_of(begins_with or study.digest, seed.value, images))


def identity_of(settings_digest: str, seed: int, images: LabeledImages) -> str:
    """A digest of all that a computation depends on; it never leaves the site.

    `settings_digest` is that of the study, or of the part of it that matters.
    """
    digest = hashlib.sha256(f"{settings_digest}/{seed}/".encode())
    digest.update(images.images.numpy().tobytes())
    digest.update(images.labels.numpy().tobytes())
    return digest.hexdigest()
