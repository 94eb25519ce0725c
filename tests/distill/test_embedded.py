from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from fedcondense.distill import methods
from fedcondense.distill.embedded import (
    EmbeddedDistillation,
    OwnViews,
    distill_embedded,
    embedding_loss,
)
from fedcondense.distill.methods import distill
from fedcondense.distill.source import PlainSource
from fedcondense.distill.synthetic import initial_set
from fedcondense.errors import DivergedError
from fedcondense.learning.feature_maps import PublicMap, public_maps, unit_embeddings
from fedcondense.learning.networks import Network
from fedcondense.learning.partition import expand_partitions
from fedcondense.learning.randomness import Seed

from .conftest import Kept, Untouched, small_study
from .test_device import Device

SEED = Seed(3)


@dataclass(frozen=True)
class Given:
    """Class means as numbers."""

    maps: tuple[PublicMap, ...]
    targets: torch.Tensor


class GivenSource:
    """Grants class embeddings; asked for an image it fails the test."""

    device = torch.device("cpu")

    def __init__(self, given: Given, labels: tuple[int, ...]) -> None:
        self.given, self.labels, self.asked = given, labels, 0

    def class_embeddings(self) -> Given:
        self.asked += 1
        return self.given

    def _image(self, *args, **kwargs):
        raise AssertionError("an image was asked for")

    draw = draw_batch = epoch = _image


def given_by(source: PlainSource, maps: int = 4, labels: tuple[int, ...] = (0, 1, 2, 3)):
    """Exact means of the toy images."""
    made = public_maps(small_study("dm"), maps)
    targets = [
        torch.stack(
            [unit_embeddings(m, source.draw(c, 99, torch.Generator())).mean(0) for m in made]
        )
        for c in labels
    ]
    return GivenSource(Given(made, torch.stack(targets, dim=1).double()), labels)


@pytest.fixture(scope="module")
def given(source) -> Given:
    return given_by(source).given


def embedded_of(given: Given, labels=(0, 1, 2, 3)) -> GivenSource:
    return GivenSource(given, labels)


def test_the_loss_is_the_squared_distance_of_mean_unit_vectors_in_the_networks_unit():
    # by hand: a network that answers its pixels, seen from zero; unit (3/5, 4/5), (1, 0), (0, 1)
    network = Network(nn.Sequential(nn.Identity()), nn.Linear(2, 1))
    public_map = PublicMap(network, (None,), torch.zeros(2), 10.0)
    views = torch.tensor([[3.0, 4.0], [2.0, 0.0], [0.0, 7.0], [0.0, 1.0]]).view(4, 1, 1, 2)
    targets = torch.tensor([[0.8, 0.0], [0.0, 0.5]])

    # class means (.8, .4) and (0, 1): 10 * (.4^2 + .5^2)
    assert float(embedding_loss(public_map, views, targets)) == pytest.approx(4.1)


def by_hand(source, study, iterations: int) -> torch.Tensor:
    """One map at random, one step of all classes' summed distances."""
    settings, given = study.distill, source.given
    pixels = initial_set(
        source,
        study.image,
        start=settings.start,
        images_per_class=3,
        partition=settings.partition,
        generator=SEED.stream("start"),
    ).images
    draws, velocity = SEED.stream("matching"), torch.zeros_like(pixels)
    for _ in range(iterations):
        number = int(torch.randint(len(given.maps), (1,), generator=draws))
        public_map = given.maps[number]
        pixels = pixels.detach().requires_grad_()
        loss = torch.zeros(())
        for c in range(len(source.labels)):
            own = pixels[3 * c : 3 * c + 3]
            mean = unit_embeddings(public_map, own).mean(dim=0)
            loss = loss + (mean - given.targets[number, c]).square().sum()
        (gradient,) = torch.autograd.grad(public_map.scale * loss, pixels)
        velocity = settings.image_momentum * velocity + gradient
        pixels = pixels - settings.image_rate * velocity
    return pixels.detach().float()


def test_dm_moves_the_pixels_towards_the_given_means_and_asks_for_no_image(given):
    study, source = small_study("dm", iterations=3), embedded_of(given)

    result = distill_embedded(source, study, seed=SEED, experts=Untouched())

    assert_close(result.images, by_hand(source, study, 3), rtol=1e-4, atol=1e-5)
    assert source.asked == 1


@pytest.mark.parametrize("method", ["dm", "idm"])
def test_the_set_comes_nearer_to_the_means_in_every_map(method, source):
    study = small_study(method, iterations=12)
    given = given_by(source)

    result = distill_embedded(given, study, seed=SEED)

    for public_map, targets in zip(given.given.maps, given.given.targets, strict=True):
        before, after = (
            embedding_loss(public_map, in_class_order(images, study), targets.float())
            for images in (result.started_from, result.images)
        )
        assert float(after) < 0.5 * float(before)


def in_class_order(images, study):
    parts = images.split(study.images_per_class)
    return torch.cat([expand_partitions(part, study.distill.partition) for part in parts])


def test_dm_has_no_class_regularisation_and_idm_has_it(given):
    figures = {}
    for method in ("dm", "idm"):
        steps = []
        study = small_study(method, iterations=8)
        distill_embedded(embedded_of(given), study, seed=SEED, watch=steps.append)
        figures[method] = steps

    assert [set(s.figures) for s in figures["dm"]] == [{"matching", "regularisation"}] * 8
    assert [s.figures["regularisation"] for s in figures["dm"]] == [0] * 8
    assert set(figures["idm"][0].figures) == {"matching", "regularisation", "queue_accuracy"}
    assert max(s.figures["regularisation"] for s in figures["idm"]) > 0


def test_the_class_regularisation_is_cross_entropy_by_accuracy_on_the_set_itself(given):
    study = small_study("idm", iterations=9, class_weight=0.25)
    run = EmbeddedDistillation(embedded_of(given), study, SEED)
    for _ in range(5):
        run.iterate()
    network, weight = run._classifier()

    _, regularised = run._losses(run.pixels, 0, network, weight)

    (member,) = [m for m in run.queue.members if m.network is network]
    views = in_class_order(run.pixels, study)
    labels = torch.arange(4).repeat_interleave(12)
    share = member.correct / member.seen.clamp(min=1)
    assert_close(weight, 0.25 * share)
    assert_close(regularised, weight * 4 * F.cross_entropy(network(views), labels))


def test_the_queue_learns_from_the_set_as_it_is_and_from_nobody_else(given, monkeypatch):
    study = small_study("idm", iterations=3)
    run = EmbeddedDistillation(embedded_of(given), study, SEED)
    learned_from = []
    learn = run.queue.learn
    monkeypatch.setattr(run.queue, "learn", lambda own: learned_from.append(own) or learn(own))

    for _ in range(3):
        run.iterate()
        images, labels = learned_from[-1].draw_batch(999, torch.Generator(), balanced=True)
        views = in_class_order(run.pixels, study)
        order = [int((views - image).abs().sum(dim=(1, 2, 3)).argmin()) for image in images]
        assert sorted(order) == list(range(48))
        assert torch.equal(images, views[order])
        assert labels.tolist() == [row // 12 for row in order]


def test_a_batch_of_the_own_set_has_no_gradient_and_no_image_twice():
    images = torch.arange(6.0).view(6, 1, 1, 1).requires_grad_()

    drawn, labels = OwnViews(2 * images, torch.arange(6)).draw_batch(
        4, torch.Generator(), balanced=False
    )

    assert not drawn.requires_grad
    assert len(set(labels.tolist())) == 4
    assert drawn.flatten().tolist() == [2.0 * label for label in labels.tolist()]


def test_classes_that_are_left_out_have_no_image(given):
    some = Given(given.maps, given.targets[:, [1, 3]])

    result = distill_embedded(embedded_of(some, (1, 3)), small_study("idm"), seed=SEED)

    assert result.labels.tolist() == [1, 1, 1, 3, 3, 3]


def test_equal_seeds_give_equal_bits_and_the_global_generator_rests(given):
    before = torch.random.get_rng_state()

    one, other = (
        distill_embedded(embedded_of(given), small_study("idm"), seed=SEED) for _ in range(2)
    )

    assert torch.equal(one.images, other.images)
    assert torch.equal(before, torch.random.get_rng_state())


def test_nothing_is_kept_and_what_was_kept_is_not_taken_up(given):
    study = small_study("dm")
    fresh = distill_embedded(embedded_of(given), study, seed=SEED)
    kept = Kept(after=1, state={"pixels": torch.zeros(12, 1, 16, 16)})

    result = distill_embedded(embedded_of(given), study, seed=SEED, checkpoints=kept)

    assert torch.equal(result.images, fresh.images)
    assert kept.seen == 0


def test_means_that_are_no_numbers_are_a_named_error(given):
    broken = Given(given.maps, given.targets * float("nan"))

    with pytest.raises(DivergedError, match="the gradient is not finite"):
        distill_embedded(embedded_of(broken), small_study("dm"), seed=SEED)


@pytest.mark.parametrize("method", ["dm", "idm"])
def test_what_a_source_grants_decides_the_form_of_a_method(method, source, given, monkeypatch):
    study = small_study(method)
    plain = distill(source, study, seed=SEED)
    monkeypatch.setitem(methods.METHODS, method, Untouched()._looked_at)

    ours = distill(embedded_of(given), study, seed=SEED)

    again = distill_embedded(embedded_of(given), study, seed=SEED)
    assert torch.equal(ours.images, again.images)
    assert not torch.equal(ours.images, plain.images)


@pytest.mark.parametrize("method", ["random", "herding", "forgetting", "mtt", "pruned-mtt"])
def test_other_methods_have_no_form_without_images(method, given):
    with pytest.raises(AssertionError, match="an image was asked for"):
        distill(embedded_of(given), small_study(method), seed=SEED)


@pytest.mark.parametrize("method", ["dm", "idm"])
def test_no_iteration_reads_a_number_from_the_device(method, given):
    run = EmbeddedDistillation(embedded_of(given), small_study(method), SEED)
    networks = [m.network for m in run.queue.members] if run.queue else []
    weights = [p for network in networks for p in network.parameters()]
    device = Device([run.targets, run.pixels, *weights, *(m.centre for m in run.maps)])

    with device:
        for _ in range(4):
            figures = run.iterate()

    assert device.read == []
    assert device.holds(figures["matching"])
