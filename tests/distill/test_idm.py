from __future__ import annotations

import inspect

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from fedcondense.distill.idm import distill_idm, draw, objective
from fedcondense.distill.methods import METHODS
from fedcondense.distill.source import PlainSource
from fedcondense.errors import DivergedError
from fedcondense.learning.augment import augment
from fedcondense.learning.networks import build_network
from fedcondense.learning.partition import expand_partitions
from fedcondense.learning.randomness import Seed
from fedcondense.learning.training import TrainingSet, predict, train_classifier

from .conftest import toy_images, toy_study


class Kept:
    """Keeps the state after one iteration, and can answer it."""

    def __init__(self, after=None, state=None):
        self.after, self.state, self.seen = after, state, 0

    def latest(self):
        return self.state

    def offer(self, state):
        self.seen += 1
        if self.seen == self.after:
            self.state = state()


def test_the_objective_is_the_papers_class_by_class(source):
    study = toy_study()
    generator = torch.Generator().manual_seed(0)
    net = build_network(
        channels=1, classes=4, size=16, width=16, depth=2, generator=generator
    ).double()
    drawn = draw(source, study.distill, generator)
    images = torch.randn(12, 1, 16, 16, generator=generator, dtype=torch.float64)
    drawn = type(drawn)(
        [r.double() for r in drawn.real],
        [type(a)(a.family, a.uniform.double()) for a in drawn.augmentations],
    )
    labels = torch.arange(4).repeat_interleave(3)

    matched, regularised = objective(net, images, labels, drawn, partition=2, regularisation=0.3)

    expected_match = expected_entropy = torch.zeros((), dtype=torch.float64)
    for c in range(4):
        real = net.features(augment(drawn.real[c], drawn.augmentations[c])).mean(dim=0)
        views = augment(expand_partitions(images[3 * c : 3 * c + 3], 2), drawn.augmentations[c])
        expected_match = expected_match + (real - net.features(views).mean(dim=0)).square().sum()
        target = torch.full((12,), c)
        expected_entropy = expected_entropy + F.cross_entropy(net(views), target)
    assert_close(matched, expected_match, rtol=1e-10, atol=0)
    assert_close(regularised, 0.3 * expected_entropy, rtol=1e-10, atol=0)


def test_the_real_side_and_the_network_get_no_gradient(source):
    generator = torch.Generator().manual_seed(0)
    net = build_network(channels=1, classes=4, size=16, width=4, depth=2, generator=generator)
    images = torch.randn(12, 1, 16, 16, requires_grad=True)
    drawn = draw(source, toy_study().distill, generator)
    labels = torch.arange(4).repeat_interleave(3)

    loss = sum(objective(net, images, labels, drawn, partition=2, regularisation=0.0))
    torch.autograd.grad(loss, images)

    assert all(p.grad is None for p in net.parameters())


def test_equal_seeds_give_equal_bits_and_the_global_generator_rests(source):
    before = torch.random.get_rng_state()

    one = distill_idm(source, toy_study(), seed=Seed(1))
    other = distill_idm(source, toy_study(), seed=Seed(1))

    assert torch.equal(one.images, other.images)
    assert torch.equal(before, torch.random.get_rng_state())


def test_another_seed_gives_another_set(source):
    one = distill_idm(source, toy_study(), seed=Seed(1))

    assert not torch.equal(one.images, distill_idm(source, toy_study(), seed=Seed(2)).images)


@pytest.mark.parametrize("after", [1, 3])
def test_an_interrupted_run_ends_with_the_bits_of_an_undisturbed_one(source, after):
    study = toy_study(iterations=6, queue_length=4, push_interval=2)
    kept = Kept(after=after)
    whole = distill_idm(source, study, seed=Seed(3), checkpoints=kept)

    resumed = distill_idm(source, study, seed=Seed(3), checkpoints=Kept(state=kept.state))

    assert torch.equal(whole.images, resumed.images)


def test_the_last_iterate_is_returned(source):
    kept = Kept(after=4)

    result = distill_idm(source, toy_study(iterations=4), seed=Seed(0), checkpoints=kept)

    assert torch.equal(result.images, kept.state["pixels"])


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_no_method_can_be_given_test_images(method):
    names = set(inspect.signature(method).parameters)

    assert names == {"source", "study", "seed", "watch", "checkpoints"}


def test_a_site_with_one_class_condenses_it():
    images, labels = toy_images(9, 0)
    source = PlainSource(images[labels == 2], labels[labels == 2], toy_study().image)

    result = distill_idm(source, toy_study(), seed=Seed(0))

    assert result.labels.tolist() == [2, 2, 2]


def test_every_iteration_is_reported_with_its_figures(source):
    steps = []

    distill_idm(source, toy_study(iterations=3), seed=Seed(0), watch=steps.append)

    assert [(s.done, s.total) for s in steps] == [(1, 3), (2, 3), (3, 3)]
    assert set(steps[0].figures) == {"matching", "regularisation", "queue_accuracy"}


def test_an_image_rate_that_explodes_is_a_named_error(source):
    study = toy_study(image_rate=1e4, accuracy_reading="percent", class_weight=100.0, iterations=60)
    net_blows_up = study.model_copy(
        update={"distill": study.distill.model_copy(update={"image_rate": 1e38})}
    )

    with pytest.raises(DivergedError, match="the gradient is not finite at iteration") as caught:
        distill_idm(source, net_blows_up, seed=Seed(0))

    assert caught.value.hint == "lower distill.image_rate or distill.class_weight"


def _score(images, labels, test_images, test_labels) -> float:
    correct = 0.0
    for number in range(3):
        generator = Seed(9).stream(f"{number}")
        net = build_network(channels=1, classes=4, size=16, width=16, depth=2, generator=generator)
        train_classifier(
            net, [TrainingSet(images, labels, 64)], steps=150, families=[], generator=generator
        )
        correct += float((predict(net, test_images).argmax(dim=1) == test_labels).float().mean())
    return correct / 3


@pytest.mark.slow
def test_condensed_images_teach_more_than_random_ones_of_the_same_number():
    study = toy_study(iterations=200, real_batch=64, training_batch=64, partition=1, image_rate=5.0)
    source = PlainSource(*toy_images(100, 0), study.image)
    every = torch.cat([source.draw(c, 100, torch.Generator()) for c in range(4)])
    test = PlainSource(*toy_images(50, 1), study.image)
    test_images = torch.cat([test.draw(c, 50, torch.Generator()) for c in range(4)])
    test_labels = torch.arange(4).repeat_interleave(50)

    ours = distill_idm(source, study, seed=Seed(0))

    few = [
        torch.cat([source.draw(c, 3, Seed(draw_).stream("random")) for c in range(4)])
        for draw_ in range(3)
    ]
    ceiling = _score(every, torch.arange(4).repeat_interleave(100), test_images, test_labels)
    random = sum(_score(f, ours.labels, test_images, test_labels) for f in few) / 3
    distilled = _score(ours.images, ours.labels, test_images, test_labels)
    assert ceiling - random > 0.10
    assert distilled > random
