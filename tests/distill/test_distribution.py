from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from fedcondense.config.study import ImageSpec, NetworkSpec
from fedcondense.distill import distribution, idm
from fedcondense.distill.checkpoints import NoCheckpoints
from fedcondense.distill.distribution import Distillation, draw, objective
from fedcondense.distill.dm import FreshNetworks
from fedcondense.distill.pixel_descent import READ_EVERY, _reads
from fedcondense.distill.queue import ExpertQueue
from fedcondense.errors import DivergedError
from fedcondense.learning.augment import augment
from fedcondense.learning.networks import build_network
from fedcondense.learning.partition import expand_partitions
from fedcondense.learning.randomness import Seed
from fedcondense.progress import silent

from .conftest import EXPERTS, small_study, toy_study

ELSEWHERE = torch.device("meta")  # a device whose numbers nobody can read
TO_COPY = torch.ops.aten._to_copy.default
AUGMENTATION = (1, 3)  # the parameters of one, drawn on the host


def network_of(width: int, generator: torch.Generator):
    return build_network(
        NetworkSpec(width=width, depth=2), ImageSpec(size=16), classes=4, generator=generator
    )


def test_the_objective_is_the_papers_class_by_class(source):
    study = toy_study()
    generator = torch.Generator().manual_seed(0)
    net = network_of(16, generator).double()
    drawn = draw(source, study.distill, generator, generator)
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
    net = network_of(4, generator)
    images = torch.randn(12, 1, 16, 16, requires_grad=True)
    drawn = draw(source, toy_study().distill, generator, generator)
    labels = torch.arange(4).repeat_interleave(3)

    loss = sum(objective(net, images, labels, drawn, partition=2, regularisation=0.0))
    torch.autograd.grad(loss, images)

    assert all(p.grad is None for p in net.parameters())


class Scaled(FreshNetworks):
    """Fresh networks, where those of some iterations give what is no number."""

    def __init__(self, study, bad: set[int]) -> None:
        super().__init__(study, torch.device("cpu"), Seed(0).stream("networks"))
        self.bad = bad
        self.sampled = -1

    def sample(self):
        self.sampled += 1
        return super().sample()[0], float("nan") if self.sampled in self.bad else 0.0


def test_a_step_that_is_not_finite_moves_nothing(source):
    run = Distillation(source, small_study("dm"), Seed(0), Scaled(small_study("dm"), {1}))
    run.iterate()
    pixels, velocity = run.pixels.clone(), run.velocity.clone()

    run.iterate()

    assert torch.equal(run.pixels, pixels)
    assert torch.equal(run.velocity, velocity)


def test_two_steps_in_a_row_that_are_not_finite_are_borne(source):
    study = small_study("dm", iterations=6)

    result = Distillation(source, study, Seed(0), Scaled(study, {0, 1, 3, 4})).run(
        silent, NoCheckpoints()
    )

    assert bool(torch.isfinite(result.images).all())
    assert not torch.equal(result.images, result.started_from)


def test_the_third_in_a_row_that_is_not_finite_is_a_named_error(source):
    study = small_study("dm", iterations=9)
    run = Distillation(source, study, Seed(0), Scaled(study, {2, 3, 4}))

    with pytest.raises(DivergedError) as caught:
        run.run(silent, NoCheckpoints())

    assert caught.value.message == (
        "the gradient is not finite at iteration 5, for the 3rd time in a row"
    )
    assert caught.value.hint == "lower distill.image_rate or distill.class_weight"


def test_the_moving_average_of_the_iterates_is_returned_where_it_is_wanted(source):
    study = small_study("dm", iterations=3, averaging=0.5)
    run = Distillation(source, study, Seed(0), Scaled(study, set()))
    iterates = []

    result = run.run(lambda _: iterates.append(run.pixels.clone()), NoCheckpoints())

    # weights of 0.5 ** age, of which there are 1 + 1/2 + 1/4
    weighted = (iterates[0] / 4 + iterates[1] / 2 + iterates[2]) / 1.75
    assert_close(result.images, weighted)


def test_figures_are_read_at_every_iteration_on_a_cpu_and_every_hundredth_elsewhere():
    assert _reads(torch.device("cpu")) == 1
    assert _reads(torch.device("cuda:1")) == READ_EVERY == 100


class ElsewhereSource:
    """Images on a device where reading a number fails."""

    labels = (1, 3)
    device = ELSEWHERE

    def draw(self, label, count, generator):
        return torch.empty(count, 1, 16, 16, device=ELSEWHERE)

    def draw_batch(self, count, generator, *, balanced):
        images = torch.empty(count, 1, 16, 16, device=ELSEWHERE)
        return images, torch.empty(count, dtype=torch.int64, device=ELSEWHERE)

    def epoch(self, batch, generator, *, balanced):
        yield self.draw_batch(batch, generator, balanced=balanced)


class Waits(TorchDispatchMode):
    """Shapes of the tensors that went to another device while the host waited."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        waits = not (kwargs or {}).get("non_blocking", False)
        if function is TO_COPY and waits and args[0].device != result.device:
            self.shapes.append(tuple(args[0].shape))
        return result


def run_elsewhere(kind: str, experts, monkeypatch) -> Distillation:
    """A run whose images, networks and pixels are all on the other device."""
    for module in (distribution, idm):  # no generator lives there
        monkeypatch.setattr(module, "sampling_stream", lambda draws, *_: draws)
    source = ElsewhereSource()
    if kind == "dm":
        study = small_study("dm")
        maps = FreshNetworks(study, ELSEWHERE, torch.Generator())
    elif kind == "queue of experts":
        study = small_study("idm", queue="experts", experts=EXPERTS)
        maps = ExpertQueue(study, experts, ELSEWHERE, torch.Generator())
    else:
        study = small_study("idm", push_interval=1, training_steps=1)
        maps = idm.online_queue(source, study, Seed(0))
    return Distillation(source, study, Seed(0), maps)


KINDS = ["dm", "queue online", "queue of experts"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_iteration_waits_for_the_device(kind, experts, monkeypatch):
    run = run_elsewhere(kind, experts, monkeypatch)

    with Waits() as waits:
        figures = run.iterate()

    assert set(waits.shapes) == set()
    assert run.pixels.device == ELSEWHERE
    with pytest.raises(RuntimeError, match="meta"):  # so reading a number fails, and did not occur
        float(figures["matching"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_on_a_device_can_be_kept_and_taken_up(kind, experts, monkeypatch):
    run = run_elsewhere(kind, experts, monkeypatch)
    run.iterate()
    kept = {name: host_copy(tensor) for name, tensor in run._state().items()}

    other = run_elsewhere(kind, experts, monkeypatch)
    other._restore(kept)
    other.iterate()

    assert other.iteration == 2
    assert other.average.value("pixels").device == ELSEWHERE


def host_copy(tensor: torch.Tensor) -> torch.Tensor:
    """What a file would give back: on the CPU, whatever the numbers."""
    return tensor if tensor.device.type == "cpu" else torch.zeros(tensor.shape, dtype=tensor.dtype)
