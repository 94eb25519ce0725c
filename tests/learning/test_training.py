from __future__ import annotations

import itertools

import torch
from torch.testing import assert_close

from fedcondense.learning import training
from fedcondense.learning.networks import build_network
from fedcondense.learning.training import TrainingSet, predict, shuffled_rows, train_classifier


def network(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return build_network(channels=1, classes=2, size=16, width=8, depth=2, generator=generator)


def bright_and_dark(n=32):
    labels = torch.arange(n) % 2
    ramp = torch.linspace(-1, 1, 16).expand(n, 1, 16, 16)
    noise = torch.randn(n, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    return torch.where(
        labels.view(-1, 1, 1, 1) == 0, ramp, ramp.transpose(2, 3)
    ) + 0.3 * noise, labels


def test_every_row_comes_once_in_each_order():
    batches = itertools.islice(shuffled_rows(10, 4, torch.Generator()), 6)

    first, second = torch.cat([next(batches) for _ in range(3)]), torch.cat(list(batches))

    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(10))


def test_a_classifier_learns_what_can_be_learned():
    images, labels = bright_and_dark()
    net = network()

    train_classifier(
        net, [TrainingSet(images, labels, 16)], steps=40, families=[], generator=torch.Generator()
    )

    assert (predict(net, images).argmax(dim=1) == labels).float().mean() > 0.95


def test_probabilities_sum_to_one():
    probabilities = predict(network(), bright_and_dark()[0])

    assert_close(probabilities.sum(dim=1), torch.ones(32))


def test_each_batch_draws_from_every_set(monkeypatch):
    seen = []
    monkeypatch.setattr(training, "augment", lambda images, drawn: seen.append(images) or images)
    zeros, ones = torch.zeros(9, 1, 16, 16), torch.ones(5, 1, 16, 16)
    sets = [
        TrainingSet(zeros, torch.zeros(9, dtype=torch.long), 6),
        TrainingSet(ones, torch.ones(5, dtype=torch.long), 2),
    ]

    train_classifier(network(), sets, steps=1, families=[], generator=torch.Generator())

    assert (len(seen[0]), int(seen[0].mean(dim=(1, 2, 3)).sum())) == (8, 2)


def test_the_rate_falls_to_a_tenth_with_a_new_optimiser_after_half_the_steps(monkeypatch):
    rates = []
    original = training._optimiser
    monkeypatch.setattr(
        training, "_optimiser", lambda net, rate: rates.append(rate) or original(net, rate)
    )

    images, labels = bright_and_dark(4)
    train_classifier(
        network(),
        [TrainingSet(images, labels, 4)],
        steps=4,
        families=[],
        generator=torch.Generator(),
    )

    assert rates == [0.01, 0.001]
