"""Small images and archives that the data tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedcondense.config.study import ImageSpec

WriteArchive = Callable[..., Path]


@pytest.fixture
def spec() -> ImageSpec:
    return ImageSpec(size=16)


@pytest.fixture
def write_archive(tmp_path: Path) -> WriteArchive:
    """Write an npz of six images in two classes, with the given columns changed or added."""

    def write(**changes: object) -> Path:
        columns: dict[str, object] = {
            "images": np.arange(6 * 20 * 20).reshape(6, 20, 20).astype(np.uint8),
            "labels": np.array([0, 1, 0, 1, 0, 1]),
            "class_names": np.array(["Normal", "COVID"]),
        }
        columns.update(changes)
        path = tmp_path / "site.npz"
        np.savez_compressed(path, **{k: v for k, v in columns.items() if v is not None})
        return path

    return write
