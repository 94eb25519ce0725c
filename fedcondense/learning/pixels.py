"""The units that networks see."""

from __future__ import annotations

from jaxtyping import Float, UInt8
from torch import Tensor

from fedcondense.config.study import ImageSpec


def normalise(images: UInt8[Tensor, "n c h w"], spec: ImageSpec) -> Float[Tensor, "n c h w"]:
    """Pixels in normalised units: (value / 255 - mean) / std, with the study's constants."""
    return images.float().div_(255).sub_(spec.mean).div_(spec.std)
