"""Both loops must ask for the same movement of every pixel, or their times say nothing."""

from __future__ import annotations

from dataclasses import replace

import torch
from plain_idm import PlainConvNet, PlainSet
from torch import Tensor
from workload import Size, source_of, study_of

from fedcondense.config.study import Study
from fedcondense.distill.idm import Drawn, draw, objective
from fedcondense.learning.networks import ConvNet, build_network
from fedcondense.learning.randomness import Seed

LARGEST_DIFFERENCE = 1e-10  # of the largest gradient, in float64
REGULARISATION = 0.3  # lambda times an accuracy: both terms of the objective take part


def gradient_difference(size: Size) -> float:
    """Largest difference of the two loops' image gradients, relative to the largest gradient.

    One iteration's images, augmentations and network serve both, in float64. The batches are
    small: double precision is slow, and the number of images changes no formula.
    """
    size = replace(size, images_per_class=2, real_batch=3)
    study, seed = study_of(size), Seed(1)
    drawn = draw(source_of(size), study.distill, seed.stream("draws"))
    drawn = Drawn([real.double() for real in drawn.real], drawn.augmentations)
    network = _network(study, seed.stream("network"))
    labels = torch.arange(size.classes).repeat_interleave(size.images_per_class)
    shape = (len(labels), size.channels, size.side, size.side)
    images = torch.randn(shape, generator=seed.stream("start"), dtype=torch.float64)
    ours = our_gradient(network, images, labels, drawn, size.partition)
    plain = plain_gradient(network, images, labels, drawn, study)
    return float((ours - plain).abs().max() / plain.abs().max())


def our_gradient(
    network: ConvNet, images: Tensor, labels: Tensor, drawn: Drawn, partition: int
) -> Tensor:
    """The gradient that `fedcondense.distill.idm` steps along."""
    images = images.clone().requires_grad_()
    terms = objective(
        network, images, labels, drawn, partition=partition, regularisation=REGULARISATION
    )
    (gradient,) = torch.autograd.grad(sum(terms), images)
    return gradient


def plain_gradient(
    network: ConvNet, images: Tensor, labels: Tensor, drawn: Drawn, study: Study
) -> Tensor:
    """How far the plain loop moves in one iteration with rate 1 and no momentum."""
    settings = study.distill.model_copy(update={"image_rate": 1.0, "image_momentum": 0.0})
    synthetic = PlainSet(images, labels, settings)
    plain = PlainConvNet(network).double()
    plain.load_state_dict(network.state_dict())
    for label, (real, augmentation) in enumerate(zip(drawn.real, drawn.augmentations, strict=True)):
        synthetic.match_class(plain, label, real, augmentation, REGULARISATION)
    return images - synthetic.images.detach()


def _network(study: Study, generator: torch.Generator) -> ConvNet:
    return build_network(
        channels=study.image.channels,
        classes=len(study.classes),
        size=study.image.size,
        width=study.network.width,
        depth=study.network.depth,
        generator=generator,
    ).double()
