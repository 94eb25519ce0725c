"""What networks predicted of the server's own images, kept so that a report can be written again.

Labels and groups are kept beside the predictions, groups as numbers: nothing else of an image is
needed for a score, and no name of a patient is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from fedcondense.data.dataset import LabeledImages
from fedcondense.files.storage import read_arrays, write_arrays


@dataclass(frozen=True)
class Predictions:
    """Predictions of each network for one test set, and what they are held against.

    `groups` numbers the groups in the order of their names, so that resamples are the same.
    """

    probabilities: Float32[np.ndarray, "m n k"]
    labels: Int64[np.ndarray, " n"]
    groups: Int64[np.ndarray, " n"]

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names that sort as the groups' own did."""
        return tuple(f"{number:09d}" for number in self.groups.tolist())


def write_predictions(
    path: Path,
    probabilities: Mapping[str, Float32[np.ndarray, "m n k"]],
    tests: Mapping[str, LabeledImages],
) -> None:
    """Keep the predictions for each test set."""
    arrays: dict[str, np.ndarray] = {}
    for name, images in tests.items():
        _, numbers = np.unique(np.asarray(images.groups), return_inverse=True)
        arrays[f"{name}|probabilities"] = probabilities[name]
        arrays[f"{name}|labels"] = images.labels.numpy()
        arrays[f"{name}|groups"] = numbers.astype(np.int64)
    write_arrays(path, arrays)


def read_predictions(path: Path) -> dict[str, Predictions]:
    """What `write_predictions` wrote, by test set."""
    arrays = read_arrays(path)
    tests = sorted({key.rpartition("|")[0] for key in arrays})
    kinds = ("probabilities", "labels", "groups")
    return {test: Predictions(*(arrays[f"{test}|{kind}"] for kind in kinds)) for test in tests}
