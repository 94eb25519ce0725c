"""The ConvNet of the distillation papers, initialised from an explicit generator."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class _FirstConvolution(nn.Conv2d):
    """A 3x3 convolution of few channels whose gradient towards the image is cheap on a CPU.

    Matching differentiates the pixels. The library's gradient towards one or three channels leaves
    the vector units idle; as a product of matrices it takes a sixth to two fifths of the time.
    """

    bias: Tensor

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        if images.is_cuda or not images.requires_grad:
            return super().forward(images)
        windows = F.unfold(images, 3, padding=1)
        weight = self.weight.flatten(1).expand(len(images), -1, -1)
        flat = torch.baddbmm(self.bias.view(1, -1, 1), weight, windows)
        return flat.unflatten(2, images.shape[2:])


class _Halve(torch.autograd.Function):
    """Average over 2x2 pixels by whole rows; a last odd row or column is left out.

    PyTorch's own pooling is a scalar loop on a CPU: there, this takes a third of the time.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c i j"]:
        height, width = images.shape[2] // 2 * 2, images.shape[3] // 2 * 2
        rows = images[:, :, 0:height:2] + images[:, :, 1:height:2]
        return rows[..., 0:width:2].add(rows[..., 1:width:2]).mul_(0.25)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.odd = [side % 2 for side in inputs[0].shape[2:]]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        row = (0.25 * gradient).repeat_interleave(2, dim=3)
        whole = torch.stack((row, row), dim=3).flatten(2, 3)
        return F.pad(whole, (0, ctx.odd[1], 0, ctx.odd[0])) if any(ctx.odd) else whole


class _AveragePooling(nn.Module):
    """AvgPool 2, by the faster way on each device."""

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c i j"]:
        return F.avg_pool2d(images, 2) if images.is_cuda else _Halve.apply(images)


class ConvNet(nn.Module):
    """`depth` x [Conv 3x3, GroupNorm(width, width), ReLU, AvgPool 2], flatten, Linear.

    Zhao et al. 2023, sec. 5.1; Gidaris & Komodakis 2018. GroupNorm with one group per channel is
    instance norm that survives an empty batch.
    """

    def __init__(self, *, channels: int, classes: int, size: int, width: int, depth: int) -> None:
        super().__init__()
        if size >> (depth - 1) < 2:
            # a norm over one pixel is zero whatever comes in: the network would be dead
            raise ValueError(f"{depth} halvings leave less than 2 x 2 pixels of {size}")
        blocks: list[nn.Module] = []
        for block in range(depth):
            convolution = nn.Conv2d if block else _FirstConvolution
            blocks += [
                convolution(width if block else channels, width, 3, padding=1),
                nn.GroupNorm(width, width),
                nn.ReLU(inplace=True),
                _AveragePooling(),
            ]
        self.body = nn.Sequential(*blocks)
        self.head = nn.Linear(width * (size >> depth) ** 2, classes)

    def features(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The embedding: what the classifier's last layer sees, flattened."""
        return self.body(images).flatten(
            1
        )  # not `view`: crops of one channel are ambiguous in memory

    def features_and_logits(
        self, images: Float[Tensor, "n c h w"]
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n k"]]:
        """Embedding and class scores from one pass."""
        features = self.features(images)
        return features, self.head(features)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Class scores before the softmax."""
        return self.head(self.features(images))


def build_network(
    *,
    channels: int,
    classes: int,
    size: int,
    width: int,
    depth: int,
    generator: torch.Generator,
) -> ConvNet:
    """A fresh ConvNet with PyTorch's default initialisation, drawn from `generator` alone."""
    with torch.device("meta"):  # the constructors would draw from the global generator
        network = ConvNet(channels=channels, classes=classes, size=size, width=width, depth=depth)
    network.to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            _initialise(module, generator)
        elif isinstance(module, nn.GroupNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    return network


def _initialise(layer: nn.Conv2d | nn.Linear, generator: torch.Generator) -> None:
    """Weights and bias uniform in +-1/sqrt(fan-in), PyTorch's default."""
    nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
    bound = 1 / math.sqrt(layer.weight[0].numel())
    if layer.bias is not None:
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
