from __future__ import annotations

import torch
from torch.testing import assert_close

from fedcondense.config.methods import AccuracyReading
from fedcondense.distill.queue import ModelQueue, train_step
from fedcondense.learning.networks import build_network

from .conftest import toy_study


def queue(**settings):
    made = []

    def make(generator):
        made.append(
            build_network(channels=1, classes=4, size=16, width=4, depth=2, generator=generator)
        )
        return made[-1]

    settings = {"queue_length": 5, "push_interval": 10} | settings
    return ModelQueue(toy_study(**settings).distill, make, torch.Generator().manual_seed(0)), made


def test_the_queue_begins_with_three_and_grows_at_every_interval_the_first_included():
    models, _ = queue()

    lengths = []
    for iteration in range(12):
        models.maintain(iteration)
        lengths.append(len(models.members))

    assert lengths == [4] * 10 + [5, 5]


def test_the_oldest_leaves_a_full_queue():
    models, made = queue(queue_length=3)

    models.maintain(0)
    models.maintain(10)

    assert [m.network for m in models.members] == made[2:5]


def test_sampling_reaches_every_network():
    models, _ = queue()

    sampled = {id(models.sample()) for _ in range(100)}

    assert sampled == {id(member) for member in models.members}


def test_an_untrained_network_weighs_nothing_in_the_regularisation():
    models, _ = queue()

    assert models.sample().accuracy(AccuracyReading.PERCENT) == 0


def test_percent_is_a_hundred_times_the_fraction(source):
    models, _ = queue()
    models.train(source)
    trained = [m for m in models.members if m.seen > 0]

    for member in trained:
        share = member.accuracy(AccuracyReading.FRACTION)
        assert_close(member.accuracy(AccuracyReading.PERCENT), 100 * share)
        assert 0 <= share <= 1


def test_training_takes_k_steps_of_each_of_two_networks(source):
    models, _ = queue(training_steps=3, training_batch=8)

    models.train(source)

    assert sorted(int(m.seen) for m in models.members) == [0, 24, 24]


def test_accuracies_begin_anew_at_the_reset_interval_alone(source):
    models, _ = queue(accuracy_reset_interval=4)
    models.train(source)

    models.maintain(3)
    kept = sum(int(m.seen) for m in models.members)
    models.maintain(4)

    assert kept > 0
    assert all(int(m.seen) == 0 for m in models.members)


def test_a_step_is_the_published_sgd_on_the_mean_cross_entropy(source):
    models, _ = queue()
    member = models.members[0]
    images, labels = source.draw_batch(8, torch.Generator(), balanced=True)
    before = [p.detach().clone() for p in member.network.parameters()]
    loss = torch.nn.functional.cross_entropy(member.network(images), labels)
    gradients = torch.autograd.grad(loss, list(member.network.parameters()))

    train_step(member, images, labels)

    for new, old, gradient in zip(member.network.parameters(), before, gradients, strict=True):
        assert_close(new.detach(), old - 0.01 * (gradient + 5e-4 * old))


def test_a_restored_queue_goes_on_as_the_one_that_was_kept(source):
    models, _ = queue()
    models.maintain(0)
    models.train(source)
    kept = models.state()
    models.maintain(10)
    models.train(source)

    other, _ = queue()
    other.restore(kept)
    other.maintain(10)
    other.train(source)

    ours, theirs = models.state(), other.state()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
