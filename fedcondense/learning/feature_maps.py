"""Fixed maps from images to unit vectors: random networks that anybody can build again.

They depend on the study's network and on a public seed, from the second round on also on a global
synthetic set, never on the patients that they will embed; so a sum of embeddings has a bound that
is known before an image is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fedcondense.config.matching import Matching
from fedcondense.config.study import Study
from fedcondense.learning.augment import Augmentation, augment, draw_augmentation
from fedcondense.learning.networks import Network, build_network
from fedcondense.learning.randomness import Seed

PUBLIC_IMAGES = 256  # random images whose mean embedding is a map's centre
LEAST_NORM = 1e-12
AT_ONCE = 128  # images, where no gradient is wanted


@dataclass(frozen=True)
class PublicMap:
    """A network, and the point from which its embeddings are seen.

    Attributes:
        network: frozen; its embedding is the one that `dm` and `idm` match.
        views: transforms whose embeddings are averaged; one that is None is the image itself.
        centre: mean embedding of random images. Features behind a ReLU are positive: seen from
            zero all images lie in nearly one direction, and classes differ by a tenth of a length.
        scale: mean squared distance of those random images from the centre. It turns squared
            distances of unit vectors into the network's own unit, in which step sizes are chosen.
    """

    network: Network
    views: tuple[Augmentation | None, ...]
    centre: Float[Tensor, " d"]
    scale: float


def public_maps(
    study: Study,
    count: int,
    *,
    views: int = 1,
    device: torch.device | str = "cpu",
    networks: Sequence[Network] = (),
) -> tuple[PublicMap, ...]:
    """The first `count` maps of a study; the same study gives the same ones everywhere.

    Each has one of `networks` as long as there are any, then a random one.
    """
    seed = Seed(study.seed).child("feature-maps")
    images = random_images(
        PUBLIC_IMAGES,
        channels=study.image.channels,
        size=study.image.size,
        generator=seed.stream("images"),
    ).to(device)
    return tuple(
        _public_map(study, images, seed.stream(f"map-{number}"), views, networks[number:])
        for number in range(count)
    )


def unit_embeddings(
    public_map: PublicMap, images: Float[Tensor, "n c h w"]
) -> Float[Tensor, "n d"]:
    """One vector of length 1 for each image; gradients reach the pixels.

    Whatever has pixels or features that are not finite becomes the zero vector, and so does an
    image that lies in the centre.
    """
    away = _embedded(public_map.network, public_map.views, images) - public_map.centre
    away = torch.where(_finite_rows(images, away), away, 0.0)
    return away / torch.linalg.vector_norm(away, dim=1, keepdim=True).clamp(min=LEAST_NORM)


def random_images(
    count: int, *, channels: int, size: int, generator: torch.Generator
) -> Float[Tensor, "n c size size"]:
    """Smooth noise whose amplitude falls with frequency as that of photographs: 1 / f.

    Field 1987. Each plane has mean 0 and standard deviation 1, in normalised units.
    """
    noise = torch.randn(count, channels, size, size, generator=generator)
    rows, columns = torch.fft.fftfreq(size), torch.fft.rfftfreq(size)
    frequency = (rows.square().unsqueeze(1) + columns.square()).sqrt()
    frequency[0, 0] = math.inf  # no mean
    smooth = torch.fft.irfft2(torch.fft.rfft2(noise) / frequency, s=(size, size))
    return smooth / smooth.std(dim=(2, 3), keepdim=True)


def _public_map(
    study: Study,
    images: Float[Tensor, "n c h w"],
    generator: torch.Generator,
    views: int,
    given: Sequence[Network],
) -> PublicMap:
    """The map of the first network that is given, or of a random one."""
    classes = len(study.classes)
    network = build_network(study.network, study.image, classes=classes, generator=generator)
    if given:
        network.load_state_dict(given[0].state_dict())  # a copy: maps are frozen
    network = network.to(images.device).requires_grad_(requires_grad=False)
    families = [str(family) for family in study.settings(Matching).families]
    others = [draw_augmentation(families, generator) for _ in range(views - 1)]
    parts = [_embedded(network, (None, *others), part) for part in images.split(AT_ONCE)]
    embedded = torch.cat(parts)
    centre = embedded.mean(dim=0)
    scale = (embedded - centre).square().sum(dim=1).mean()
    return PublicMap(network, (None, *others), centre, float(scale))


def _embedded(
    network: Network, views: tuple[Augmentation | None, ...], images: Float[Tensor, "n c h w"]
) -> Float[Tensor, "n d"]:
    embedded = [network.features(augment(images, view)) for view in views]
    return torch.stack(embedded).mean(dim=0)


def _finite_rows(*parts: Tensor) -> Bool[Tensor, "n 1"]:
    rows = [part.flatten(1).isfinite().all(dim=1, keepdim=True) for part in parts]
    return torch.stack(rows).all(dim=0)
