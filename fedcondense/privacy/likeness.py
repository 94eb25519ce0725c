"""How alike two pictures are, once all that the patients of a class share is taken away.

Two radiographs of strangers correlate at .9 and more: they are both chests. A patient shows in the
rest. So pictures are compared as directions: the features of one less the mean of its class, in
units of how patients of one class differ (linear discriminant coordinates). The cosine of two such
directions is a normalised cross-correlation of what is a patient's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from fedcondense.config.study import ImageSpec, NetworkSpec
from fedcondense.learning.networks import build_network
from fedcondense.learning.partition import expand_labels, expand_partitions
from fedcondense.learning.randomness import Seed

BLOCKS = 32  # an image is compared by the means of 32 x 32 blocks
EMBEDDED_SIDE = 32  # pixels; the embedding of larger images costs no more
EMBEDDED_CELLS = 4  # each way, of the map whose means are the embedding
EMBEDDING_WIDTH, EMBEDDING_DEPTH = 16, 2
BATCH = 512


class Kind(StrEnum):
    """What of a stored image may be a patient."""

    WHOLE = "whole"
    TILES = "tiles"  # a part that shows a whole patient, made small
    QUADRANTS = "quadrants"  # a quarter that is the same quarter of a patient


class Space(StrEnum):
    """By which features pictures are compared."""

    PIXELS = "pixels"
    EMBEDDING = "embedding"


# Of the mean variance of features: what is added to every variance before it counts as anatomy and
# not as noise. Chosen on radiographs at 32 px, for finding patients under noise.
RIDGES = {Space.PIXELS: 1.0, Space.EMBEDDING: 0.1}


@dataclass(frozen=True)
class View:
    """Parts of synthetic images with their labels, and the parts of real ones they may show."""

    kind: Kind
    synthetic: Float[Tensor, "m c h w"]
    labels: Int64[Tensor, " m"]
    real: Float[Tensor, "n c h w"]


def views(
    synthetic: Float[Tensor, "m c h w"],
    labels: Int64[Tensor, " m"],
    real: Float[Tensor, "n c h w"],
    *,
    partition: int,
) -> Iterator[View]:
    """All that is compared: whole images, tiles, and each of the four quadrants.

    An image that is trained on as a whole could still hold four small patients: where the set is
    not partitioned, tiles are those of a partition into 2 x 2.
    """
    yield View(Kind.WHOLE, synthetic, labels, real)
    tiles = max(partition, 2)
    small = _shrunk(real, tiles)
    yield View(Kind.TILES, expand_partitions(synthetic, tiles), expand_labels(labels, tiles), small)
    for ours, theirs in zip(_quadrants(synthetic), _quadrants(real), strict=True):
        yield View(Kind.QUADRANTS, ours, labels, theirs)


def shown_by(partition: int) -> Kind:
    """In what a set would show patients as a hospital's own images do.

    Other kinds look for what was put there: a quarter of a chest is unlike every small chest.
    """
    return Kind.WHOLE if partition == 1 else Kind.TILES


def features(images: Float[Tensor, "n c h w"], space: Space) -> Float[Tensor, "n d"]:
    """Images as they are compared in `space`."""
    return torch.cat([_FEATURES[space](part) for part in images.split(BATCH)])


def block_means(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
    """The means of 32 x 32 blocks, or all pixels of an image that has no more."""
    return F.adaptive_avg_pool2d(images, min(BLOCKS, images.shape[-1])).flatten(1)


@torch.no_grad()
def embedding(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
    """What a ConvNet with random public weights, always the same, makes of images."""
    side = EMBEDDED_SIDE if images.shape[-1] >= EMBEDDED_SIDE else EMBEDDED_SIDE // 2
    maps = _body(images.shape[1])(F.adaptive_avg_pool2d(images, side))
    return F.adaptive_avg_pool2d(maps, EMBEDDED_CELLS).flatten(1)


@dataclass(frozen=True)
class Contrast:
    """What tells the patients of a class apart: its mean, and how they differ from it.

    `triangle` is the Cholesky factor of the covariance within classes, ridge included.
    """

    means: Float[Tensor, "k d"]
    triangle: Float[Tensor, "d d"]

    @classmethod
    def of(
        cls, found: Float[Tensor, "n d"], labels: Int64[Tensor, " n"], *, classes: int, ridge: float
    ) -> Contrast:
        """The contrast among these features; a class that has none has the mean zero.

        `ridge` times the mean variance is added to each variance.
        """
        means = torch.zeros(classes, found.shape[1]).index_add_(0, labels, found)
        counts = torch.bincount(labels, minlength=classes).clamp(min=1)
        means = means / counts.unsqueeze(1)
        rest = found - means[labels]
        covariance = rest.T @ rest / len(found)
        covariance.diagonal().add_(ridge * covariance.diagonal().mean().clamp(min=1e-12))
        return cls(means, torch.linalg.cholesky(covariance))

    def own(self, found: Float[Tensor, "n d"], labels: Int64[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """The features less what each picture's class shares."""
        return found - self.means[labels]

    def oriented(self, own: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The direction of what is a picture's own, of length one."""
        return F.normalize(torch.linalg.solve_triangular(self.triangle, own.T, upper=False).T)

    def directions(
        self, found: Float[Tensor, "n d"], labels: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n d"]:
        """Each picture's own direction: cosines are matrix products."""
        return self.oriented(self.own(found, labels))


def _shrunk(images: Tensor, parts: int) -> Tensor:
    """What an image is after it was made small, set into a partition, and enlarged again."""
    side = images.shape[-1] // parts
    small = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
    size = (images.shape[2], images.shape[3])
    return F.interpolate(small, size=size, mode="bilinear", align_corners=False)


def _quadrants(images: Tensor) -> list[Tensor]:
    half = images.shape[-1] // 2
    return [images[..., y : y + half, x : x + half] for y in (0, half) for x in (0, half)]


@cache
def _body(channels: int) -> torch.nn.Module:
    spec = NetworkSpec(width=EMBEDDING_WIDTH, depth=EMBEDDING_DEPTH)
    image = ImageSpec(size=EMBEDDED_SIDE, channels=1 if channels == 1 else 3)
    drawn = Seed(0).stream("audit embedding")
    return build_network(spec, image, classes=2, generator=drawn).body.eval()


_FEATURES: dict[Space, Callable[[Tensor], Tensor]] = {
    Space.PIXELS: block_means,
    Space.EMBEDDING: embedding,
}
