"""Partition and expansion: a stored image carries l x l smaller ones (Zhao et al. 2023, eq. 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor


def expand_partitions(
    images: Float[Tensor, "n c h w"], partition: int
) -> Float[Tensor, "views c h w"]:
    """Cut each image into `partition`² parts and enlarge each to full size, bilinearly.

    The parts stand column by column, and all images' first parts come first: for 2, all top left,
    then bottom left, top right, bottom right. 1 gives the images themselves.
    """
    if partition == 1:
        return images
    rows = [
        part for column in images.chunk(partition, dim=3) for part in column.chunk(partition, dim=2)
    ]
    size = (images.shape[2], images.shape[3])
    return F.interpolate(torch.cat(rows), size=size, mode="bilinear", align_corners=False)


def expand_labels(labels: Integer[Tensor, " n"], partition: int) -> Integer[Tensor, " views"]:
    """The labels of `expand_partitions`' views."""
    return labels.repeat(partition * partition)


def compose_partitions(
    images: Float[Tensor, "views c h w"], partition: int
) -> Float[Tensor, "n c h w"]:
    """Shrink whole images and set l x l of them into each stored one.

    The counterpart of `expand_partitions`, in its order: what starts as real images, or stores
    them for comparison, uses every part for an image of its own. Shrinking is antialiased.
    """
    if partition == 1:
        return images
    side = images.shape[2] // partition
    small = F.interpolate(
        images, size=(side, side), mode="bilinear", align_corners=False, antialias=True
    )
    parts = small.chunk(partition * partition)
    columns = [
        torch.cat(parts[start : start + partition], dim=2)
        for start in range(0, len(parts), partition)
    ]
    return torch.cat(columns, dim=3)
