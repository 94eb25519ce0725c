"""What is timed: the sizes, their images and networks, and the floating point work they hold."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from fedcondense.config.loading import parse_settings
from fedcondense.config.study import Study
from fedcondense.distill.source import PlainSource

IMAGES_PER_CLASS_HELD = 300  # more than any batch takes of one class


@dataclass(frozen=True)
class Size:
    """One iteration's shape: images, ConvNet and batches; `partition` is l, 2 networks train."""

    channels: int
    side: int
    depth: int
    width: int
    classes: int
    images_per_class: int
    real_batch: int
    training_batch: int
    training_steps: int = 2
    trained_networks: int = 2
    partition: int = 2

    def __str__(self) -> str:
        """Such as `3x32x32 depth 3 width 128`."""
        return f"{self.channels}x{self.side}x{self.side} depth {self.depth} width {self.width}"

    @property
    def real_images(self) -> int:
        """Real images that are matched in one iteration."""
        return self.classes * self.real_batch

    @property
    def views(self) -> int:
        """Synthetic images that networks see in one iteration, after expansion."""
        return self.classes * self.images_per_class * self.partition**2

    @property
    def training_images(self) -> int:
        """Images in all training steps of one iteration."""
        return self.trained_networks * self.training_steps * self.training_batch

    @property
    def images(self) -> int:
        """All images of one iteration, each counted once whatever is computed of it."""
        return self.real_images + self.views + self.training_images


SIZES = {
    "cifar": Size(3, 32, 3, 128, 10, 10, 128, 128),
    "cxr": Size(1, 112, 5, 128, 4, 5, 16, 16),
    "short": Size(1, 32, 3, 32, 4, 5, 64, 64),  # what the preset `short` does on one core
}


def study_of(size: Size) -> Study:
    """The study whose iteration is timed: preset `short` but for the batches."""
    distill = {
        "method": "idm",
        "partition": size.partition,
        "real_batch": size.real_batch,
        "training_batch": size.training_batch,
        "training_steps": size.training_steps,
        "trained_networks": size.trained_networks,
        "push_interval": 1_000_000,  # the queue keeps its networks while the clock runs
    }
    values = {
        "name": "benchmark",
        "classes": [f"class {c}" for c in range(size.classes)],
        "image": {"size": size.side, "channels": size.channels},
        "network": {"width": size.width, "depth": size.depth},
        "images_per_class": size.images_per_class,
        "quorum": 1,
        "distill": distill,
    }
    return parse_settings(Study, values, "benchmark")


def source_of(size: Size) -> PlainSource:
    """Random pixels with labels: the work does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(size.classes).repeat_interleave(IMAGES_PER_CLASS_HELD)
    shape = (len(labels), size.channels, size.side, size.side)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return PlainSource(images, labels, study_of(size).image)


@dataclass(frozen=True)
class Work:
    """Floating point operations (2 per multiply-add) of convolutions and classifier.

    `first` is the first convolution's forward pass of one image, `body` that of all convolutions,
    `head` that of the classifier. A gradient towards weights or input costs as much as a forward
    pass; training needs none towards the images.
    """

    first: int
    body: int
    head: int

    def training(self, size: Size) -> int:
        """The queue's part of one iteration."""
        return size.training_images * (3 * (self.body + self.head) - self.first)

    def ours(self, size: Size) -> int:
        """One iteration: each image forward once, and back to the synthetic ones."""
        synthetic = size.views * 2 * (self.body + self.head)
        return size.real_images * self.body + synthetic + self.training(size)

    def plain(self, size: Size) -> int:
        """One iteration of the plain loop: two synthetic passes, each with weight gradients."""
        synthetic = size.views * 3 * (2 * self.body + self.head)
        return size.real_images * self.body + synthetic + self.training(size)


def work_of(size: Size) -> Work:
    """Count the operations of one image's forward pass."""
    layers = [
        2 * 9 * (size.width if block else size.channels) * size.width * (size.side >> block) ** 2
        for block in range(size.depth)
    ]
    head = 2 * size.width * (size.side >> size.depth) ** 2 * size.classes
    return Work(layers[0], sum(layers), head)


def convolution_rate(size: Size, repetitions: int = 20) -> float:
    """Operations per second of the layer with the most of them, the best of some repetitions.

    That is the second convolution, forward, with the training batch.
    """
    side = size.side // 2
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size.training_batch, size.width, side, side, generator=generator)
    weight = torch.randn(size.width, size.width, 3, 3, generator=generator)
    operations = 2 * 9 * size.training_batch * size.width**2 * side**2
    best = float("inf")
    with torch.no_grad():
        for _ in range(repetitions):
            began = time.perf_counter()
            F.conv2d(images, weight, padding=1)
            best = min(best, time.perf_counter() - began)
    return operations / best
