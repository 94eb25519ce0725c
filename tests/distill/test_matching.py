from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from fedcondense.distill.matching import (
    augmented_views,
    class_means,
    class_regularisation,
    folded_momentum,
    matching_loss,
    momentum_step,
)


def test_class_means_of_unequal_classes_by_hand():
    features = torch.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 7.0]])

    assert_close(class_means(features, [2, 1]), torch.tensor([[2.0, 0.0], [5.0, 7.0]]))


def test_matching_is_a_sum_over_dimensions_and_classes():
    real, synthetic = torch.zeros(2, 3), torch.full((2, 3), 2.0)

    assert matching_loss(real, synthetic) == 24


def test_regularisation_is_a_mean_within_and_a_sum_over_classes():
    # uniform scores over 4 classes cost ln 4 an image, whatever the number of images
    logits, labels = torch.zeros(6, 4), torch.tensor([0, 0, 1, 1, 2, 2])

    assert_close(class_regularisation(logits, labels, 3), 3 * torch.tensor(4.0).log())


def test_without_augmentation_the_views_are_the_parts_of_each_class_in_turn():
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 4, 4)

    views = augmented_views(images, 2, [None, None])

    assert views[:, 0, 0, 0].tolist() == [0, 1] * 4 + [2, 3] * 4


@pytest.mark.parametrize(
    ("classes", "rate", "momentum"),
    [(10, 0.3996, 0.00098), (4, 0.375, 0.0625), (2, 0.3, 0.25)],  # rate .2, momentum .5
)
def test_the_folded_step_has_the_derived_constants(classes, rate, momentum):
    assert folded_momentum(0.2, 0.5, classes) == pytest.approx((rate, momentum), abs=5e-5)


def _per_class_loop(curvature, start, *, rate, momentum, classes, iterations):
    """The published loop on a quadratic: one shared optimiser, one step per class.

    Yields pixels as each class meets them for its gradient, and as the iteration leaves them.
    """
    pixels, velocity = start.clone(), torch.zeros_like(start)
    for _ in range(iterations):
        met = torch.empty_like(pixels)
        for c in range(classes):
            met[c] = pixels[c]
            gradient = torch.zeros_like(pixels)
            gradient[c] = curvature[c] * pixels[c]
            velocity = momentum * velocity + gradient
            pixels = pixels - rate * velocity
        yield met, pixels


@pytest.mark.parametrize("classes", [2, 4, 10])
@given(seed=st.integers(0, 10_000))
def test_one_folded_step_meets_the_points_of_the_published_loop(classes, seed):
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(classes, 1, 1, 5, generator=generator, dtype=torch.float64)
    curvature = torch.rand(classes, 1, 1, 5, generator=generator, dtype=torch.float64)
    rate, momentum = folded_momentum(0.2, 0.5, classes)

    pixels, velocity = start.clone(), torch.zeros_like(start)
    loop = _per_class_loop(curvature, start, rate=0.2, momentum=0.5, classes=classes, iterations=6)
    reached = start
    for met, reached in loop:  # noqa: B007 - the last one is compared below
        assert_close(pixels, met, rtol=0, atol=1e-12)
        pixels, velocity = momentum_step(
            pixels, velocity, curvature * pixels, rate=rate, momentum=momentum
        )

    # at the end the loop's class c lacks the tail of its moves; ours is the completed step
    c = torch.arange(classes, dtype=torch.float64).view(-1, 1, 1, 1)
    tail = 0.2 * velocity * 0.5 ** (classes - c) * (1 - 0.5**c) / (1 - 0.5)
    assert_close(pixels, reached - tail, rtol=0, atol=1e-12)
