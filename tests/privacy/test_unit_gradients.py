from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from dp_sgd_kit import batch, dp_study, fresh_network, one_each
from torch import nn
from torch.testing import assert_close

from fedcondense.config.study import Architecture
from fedcondense.errors import SettingsError
from fedcondense.privacy.units import Sample, split

pytestmark = pytest.mark.slow  # Opacus takes seconds to load


class Recorder(torch.optim.SGD):
    """Plain descent at rate 1 that keeps the gradients it was given."""

    def __init__(self, parameters) -> None:
        super().__init__(parameters, lr=1.0)
        self.seen: list[torch.Tensor] = []

    def step(self, closure=None):
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        self.seen.append(torch.cat([g.flatten() for g in gradients]))
        return super().step(closure)


class Descending:
    """A network under noisy descent, by default without noise and far from the clip."""

    def __init__(self, network=None, *, clip=1e6, sigma=0.0, expected=1.0) -> None:
        from fedcondense.privacy.unit_gradients import NoisyDescent

        self.network = network or fresh_network(dp_study())
        self.descent = NoisyDescent(
            self.network,
            Recorder,
            clip=clip,
            sigma=sigma,
            expected=expected,
        )

    def step(self, sample: Sample, images, labels, *, most: int = 1_000) -> torch.Tensor:
        """The flat gradient that the plain optimiser was given."""
        self.descent.step(split(sample, most), lambda p: (images[p.rows].clone(), labels[p.rows]))
        return self.descent.optimiser.original_optimizer.seen[-1]


def by_hand(network, images, labels) -> torch.Tensor:
    """The gradient of each image alone (n, p), by plain autograd."""
    rows = []
    for image, label in zip(images, labels, strict=True):
        loss = F.cross_entropy(network(image.unsqueeze(0)), label.unsqueeze(0))
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        rows.append(torch.cat([g.flatten() for g in gradients]))
    return torch.stack(rows)


def clipped(gradients: torch.Tensor, clip: float) -> torch.Tensor:
    return gradients * (clip / gradients.norm(dim=1, keepdim=True)).clamp(max=1)


def size(network) -> int:
    return sum(p.numel() for p in network.parameters())


def test_the_gradient_of_each_image_is_that_of_the_image_alone():
    images, labels = batch(5)
    expected = by_hand(fresh_network(dp_study()), images, labels)
    ours = Descending().descent

    ours.differentiate(one_each(5), images, labels)

    found = torch.cat([p.grad_sample.flatten(1) for p in ours.parameters], dim=1)
    assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("architecture", [Architecture.ALEXNET, Architecture.RESNET18])
def test_so_it_is_in_networks_of_fixed_shape(architecture):
    study = dp_study()
    network_of = study.network.model_copy(update={"architecture": architecture})
    network = fresh_network(study.model_copy(update={"network": network_of}))
    network = network.double()  # in single precision a norm of 2 x 2 pixels magnifies rounding
    images, labels = batch(2)
    expected = by_hand(network, images.double(), labels)
    ours = Descending(network).descent

    ours.differentiate(one_each(2), images.double(), labels)

    found = torch.cat([p.grad_sample.flatten(1) for p in ours.parameters], dim=1)
    assert_close(found, expected, atol=1e-9, rtol=1e-6)


def test_the_librarys_layers_compute_the_same_with_the_same_parameters():
    from fedcondense.privacy.unit_gradients import library_layers

    network = fresh_network(dp_study())
    names = [name for name, _ in network.named_parameters()]
    parameters = list(network.parameters())
    images, _ = batch(4)
    before = network(images)

    swapped = library_layers(network)

    assert [name for name, _ in swapped.named_parameters()] == names
    assert all(p is q for p, q in zip(swapped.parameters(), parameters, strict=True))
    assert_close(swapped(images), before)
    kinds = {type(layer) for layer in swapped.modules()}
    assert {nn.GroupNorm, nn.Conv2d, nn.ReLU} < kinds
    assert not any(layer.inplace for layer in swapped.modules() if isinstance(layer, nn.ReLU))


def test_a_step_is_the_sum_of_clipped_gradients_over_the_expected_number():
    images, labels = batch(6)
    alone = by_hand(fresh_network(dp_study()), images, labels)
    clip = float(alone.norm(dim=1).median())  # some are clipped, some are not

    step = Descending(clip=clip, expected=4.0).step(one_each(6), images, labels)

    assert_close(step, clipped(alone, clip).sum(dim=0) / 4, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("clip", [1e-3, 0.1, 1.0])
def test_no_unit_moves_the_sum_by_more_than_the_clip(clip):
    images, labels = batch(1)

    step = Descending(clip=clip).step(one_each(1), 1e3 * images, labels)

    assert step.norm() <= clip * (1 + 1e-6)


def test_neighbouring_data_differ_by_the_clip_at_most():
    images, labels = batch(6)
    images[2] *= 100
    for gone in range(6):
        rest = [row for row in range(6) if row != gone]

        whole = Descending(clip=0.5).step(one_each(6), images, labels)
        without = Descending(clip=0.5).step(one_each(5), images[rest], labels[rest])

        assert 0 < (whole - without).norm() <= 0.5 * (1 + 1e-5)  # rounding of two sums


@pytest.mark.parametrize("clip", [0.2, 1e6])
def test_a_patients_gradient_is_the_mean_over_its_images_and_is_clipped_as_one(clip):
    images, labels = batch(5)
    alone = by_hand(fresh_network(dp_study()), images, labels)
    patients = torch.stack([alone[:3].mean(dim=0), alone[3], alone[4]])
    sample = Sample(torch.arange(5), torch.tensor([0, 0, 0, 1, 2]), 3)

    step = Descending(clip=clip).step(sample, images, labels)

    assert_close(step, clipped(patients, clip).sum(dim=0), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("films", [1, 2, 7])
def test_a_patient_with_many_films_moves_the_sum_by_the_clip_at_most(films):
    images, labels = batch(films)
    sample = Sample(torch.arange(films), torch.zeros(films, dtype=torch.int64), 1)

    step = Descending(clip=0.1).step(sample, 1e3 * images, labels)

    assert 0.099 < step.norm() <= 0.1 * (1 + 1e-6)


def test_a_gradient_that_is_no_number_counts_as_zero():
    images, labels = batch(4)
    others = Descending().step(one_each(3), images[1:], labels[1:])
    images[0, 0, 5, 5] = torch.nan

    step = Descending().step(one_each(4), images, labels)

    assert_close(step, others)


def test_a_film_without_a_gradient_leaves_its_patients_others():
    images, labels = batch(2)
    alone = by_hand(fresh_network(dp_study()), images, labels)
    images[0] = torch.inf
    sample = Sample(torch.arange(2), torch.zeros(2, dtype=torch.int64), 1)

    step = Descending().step(sample, images, labels)

    assert_close(step, alone[1] / 2, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("most", [1, 2, 4])
def test_parts_make_the_step_that_one_batch_makes(most):
    images, labels = batch(7)
    sample = Sample(torch.arange(7), torch.tensor([0, 0, 1, 2, 2, 2, 3]), 4)
    whole, parted = Descending(clip=0.3, expected=3.0), Descending(clip=0.3, expected=3.0)

    one = whole.step(sample, images, labels)
    many = parted.step(sample, images, labels, most=most)

    assert_close(many, one, atol=1e-7, rtol=1e-5)
    assert whole.descent.steps == parted.descent.steps == 1
    assert len(parted.descent.optimiser.original_optimizer.seen) == 1


def test_several_steps_do_not_add_up():
    images, labels = batch(4)
    ours = Descending()
    first = ours.step(one_each(4), images, labels, most=1)
    moved = fresh_network(dp_study())
    moved.load_state_dict(ours.network.state_dict())
    expected = by_hand(moved, images, labels)

    second = ours.step(one_each(4), images, labels, most=2)

    assert not torch.allclose(first, second)
    assert_close(second, expected.sum(dim=0), atol=1e-4, rtol=1e-4)
    assert ours.descent.steps == 2


WIDE = dp_study(width=104)  # 103,899 parameters


@pytest.mark.parametrize("parts", [1, 3])
def test_the_noise_has_the_charged_standard_deviation_however_many_parts(parts):
    ours = Descending(fresh_network(WIDE), clip=1e-4, sigma=2.5e5, expected=10.0)
    images, labels = batch(3)

    step = ours.step(one_each(3), images, labels, most=-(-3 // parts))

    draws = size(ours.network)
    assert draws > 100_000
    scaled = step / (1e-4 * 2.5e5 / 10)
    # three clipped gradients of 1e-4 are nothing beside it: the sum of squares is chi-square
    assert float(scaled.square().sum()) == pytest.approx(draws, abs=5 * (2 * draws) ** 0.5)
    assert abs(float(scaled.mean())) < 5 / draws**0.5


def test_an_empty_sample_is_a_step_of_noise_alone():
    ours = Descending(fresh_network(WIDE), clip=0.5, sigma=2.0, expected=8.0)
    before = torch.cat([p.detach().flatten() for p in ours.descent.parameters])
    images, labels = batch(3)

    step = ours.step(one_each(0), images, labels)

    draws = size(ours.network)
    assert ours.descent.steps == 1
    assert float((8 * step).square().sum()) == pytest.approx(draws, abs=5 * (2 * draws) ** 0.5)
    after = torch.cat([p.detach().flatten() for p in ours.descent.parameters])
    assert_close(before - after, step)


def test_a_step_of_many_does_not_depend_on_how_many_there_were():
    images, labels = batch(4)

    few = Descending(expected=10.0).step(one_each(1), images[:1], labels[:1])
    many = Descending(expected=10.0).step(
        one_each(4), images[:1].repeat(4, 1, 1, 1), labels[:1].repeat(4)
    )

    assert_close(many, 4 * few)  # not the mean: its divisor would be a count of patients


def test_batch_norm_is_refused():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(784, 3))

    with pytest.raises(SettingsError) as caught:
        Descending(network)

    assert caught.value.message.startswith("network: a layer mixes the images of a batch")
    assert caught.value.hint == "use group norm in place of batch norm"


def test_a_released_network_is_a_plain_one_again():
    images, labels = batch(2)
    ours = Descending()
    ours.step(one_each(2), images, labels)

    ours.descent.release()

    F.cross_entropy(ours.network(images), labels).backward()
    assert all(p.grad is not None for p in ours.network.parameters())
    layers = list(ours.network.modules())
    assert not any(layer._forward_hooks or layer._backward_hooks for layer in layers)
    assert not any(hasattr(layer, "activations") and layer.activations for layer in layers)
