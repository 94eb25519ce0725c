"""The server's own images: the global synthetic set is scored on them and never trained on them."""

from __future__ import annotations

import torch

from fedcondense.config.server import ServerConfig
from fedcondense.config.site import Phantoms
from fedcondense.config.study import Study
from fedcondense.data.dataset import LabeledImages
from fedcondense.data.loading import load_images
from fedcondense.errors import DataError
from fedcondense.progress import Watch, silent

TEST = "test"


def load_evaluation(
    config: ServerConfig, study: Study, *, watch: Watch = silent
) -> dict[str, LabeledImages]:
    """The test set by its name; of data with a split of its own, the test images alone.

    Raises:
        DataError: the source cannot be used, or has test images of fewer than two classes.
    """
    images = load_images(config.evaluation, study.image, classes=study.classes, watch=watch)
    if not isinstance(config.evaluation, Phantoms):  # of which any can be drawn for a test
        images = _test_images(images)
    present = [name for name, n in zip(images.classes, images.counts().tolist(), strict=True) if n]
    if len(present) < 2:
        raise DataError(
            f"evaluation images of {len(present)} of the study's classes",
            hint="a score needs two classes at least; see [evaluation] in SERVER.toml",
        )
    return {TEST: images}


def _test_images(images: LabeledImages) -> LabeledImages:
    splits = images.splits or ()
    rows = [row for row, split in enumerate(splits) if split == TEST]
    return images.select(torch.tensor(rows)) if rows else images
