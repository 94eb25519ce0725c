from __future__ import annotations

import gc
from dataclasses import replace
from math import ceil

import pytest
import torch
from dp_sgd_kit import dp_study, film_units, films, patient_units
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from fedcondense.config.experts import Experts
from fedcondense.config.loading import parse_settings
from fedcondense.config.study import Study
from fedcondense.distill.mtt import distill_mtt
from fedcondense.distill.source import Source
from fedcondense.distill.trajectories import Course, Expert, Layout, Shelf, flat_weights
from fedcondense.errors import DivergedError, InternalError, SettingsError
from fedcondense.learning.networks import build_network
from fedcondense.learning.randomness import Seed
from fedcondense.privacy import dp_sgd
from fedcondense.privacy.accounting import Mechanism
from fedcondense.privacy.dp_sgd import (
    DpSgdSource,
    PlannedSteps,
    PrivateLearner,
    SnapshotStore,
    Training,
    augment_each,
    planned_steps,
    train_private_experts,
)
from fedcondense.privacy.units import Records

SEED = Seed(1)
ALL = (0, 1, 2)


def charged(study: Study | None = None, *, sigma: float | None = 1.0, labels=ALL) -> Training:
    """What the site pays for a study that declares 24 units."""
    planned = planned_steps((study or dp_study()).distill.experts, 24)
    return Training(Mechanism("experts", sigma, planned.q, planned.steps), 24, labels)


class Snapshots:
    """A store that keeps what it is given; it says that it has the experts `there`."""

    def __init__(self, *there: int) -> None:
        self.there = there
        self.experts: dict[int, torch.Tensor] = {}

    def has(self, number: int) -> bool:
        return number in self.there

    def keep(self, number: int, weights: torch.Tensor) -> None:
        self.experts[number] = weights


def trained(study=None, *, units=None, training=None, store=None, watch=lambda step: None):
    study, store = study or dp_study(), store or Snapshots()
    units, training = units or film_units(), training or charged(study)
    train_private_experts(units, study, store, training, seed=SEED, watch=watch)
    return store.experts


def learner(study: Study, *, sigma: float | None) -> PrivateLearner:
    """An expert whose noise may be off and whose secret is known: only here."""
    return PrivateLearner(
        film_units().read("experts"),
        study,
        charged(study, sigma=sigma),
        start=torch.Generator().manual_seed(0),
        secret=torch.Generator().manual_seed(0),
    )


def test_a_plan_follows_from_batch_epochs_count_and_the_declared_number():
    # 5000 / 256 = 19.5: 20 steps an epoch
    settings = Experts(count=3, epochs=30, batch=256)

    assert planned_steps(settings, 5_000) == (0.0512, 3 * 30 * 20)


def test_a_site_smaller_than_a_batch_gives_every_unit_in_every_step():
    assert planned_steps(Experts(count=1, epochs=7, batch=1_024), 300) == (1.0, 7)


@given(batch=st.integers(1, 65_536), declared=st.integers(1, 200_000))
def test_an_epoch_is_as_many_steps_as_it_takes_to_see_each_unit_once(batch, declared):
    plan = planned_steps(Experts(count=1, epochs=1, batch=batch), declared)

    assert isinstance(plan, PlannedSteps)
    assert 0 < plan.q <= 1
    assert plan.steps == ceil(max(1, declared / batch) - 1e-9)
    assert plan.q * plan.steps >= 1 - 1e-12


def test_an_epoch_is_not_a_step_longer_by_rounding():
    assert 1 / (1 / 49) > 49

    assert planned_steps(Experts(count=1, epochs=1, batch=1), 49).steps == 49


def test_batches_of_equally_many_per_class_are_refused():
    with pytest.raises(SettingsError) as caught:
        planned_steps(Experts(class_balanced=True), 100)

    assert caught.value.message == (
        "distill.experts.class_balanced: dp-sgd samples every unit with one probability"
    )


PLAIN = dp_study().model_dump(mode="json") | {"privacy": {"mode": "none"}}


@pytest.mark.parametrize(
    ("study", "training", "units"),
    [
        (dp_study(), charged(sigma=None), film_units()),
        (dp_study(experts={"epochs": 3}), charged(), film_units()),
        (dp_study(experts={"batch": 7}), charged(), film_units()),
        (dp_study(experts={"count": 2}), charged(), film_units()),
        (dp_study(), replace(charged(), declared=25), film_units()),
        (parse_settings(Study, PLAIN, "toy"), charged(), film_units()),
        (dp_study(), charged(), patient_units()),
        (dp_study(privacy={"unit": "patient"}), charged(), film_units()),
    ],
    ids=["noise", "epochs", "batch", "count", "declared", "mode", "image", "patient"],
)
def test_what_is_not_as_charged_reads_nobody(study, training, units):
    with pytest.raises(InternalError, match=r"^experts (are not what|of another unit|of privacy)"):
        trained(study, units=units, training=training)

    assert list(units.readings) == []


@pytest.mark.parametrize(
    "draw",
    [
        lambda s: s.draw(0, 1, torch.Generator()),
        lambda s: s.draw_batch(4, torch.Generator(), balanced=False),
        lambda s: s.epoch(4, torch.Generator(), balanced=True),
    ],
    ids=["draw", "draw_batch", "epoch"],
)
def test_a_method_that_asks_for_images_gets_none_and_none_is_read(draw):
    units = film_units()
    source = DpSgdSource(charged(), units.readings)

    with pytest.raises(InternalError, match="which mode dp-sgd does not grant"):
        draw(source)

    assert source.accesses == 0


def test_the_source_knows_classes_and_how_often_patients_were_read():
    units = film_units()
    source = DpSgdSource(charged(labels=(0, 2)), units.readings)
    units.read("class-counts")
    units.read("experts")

    assert isinstance(source, Source)
    assert source.labels == (0, 2)
    assert source.device == torch.device("cpu")
    assert source.accesses == 2


def reachable(root: object) -> list[object]:
    """Everything that the attributes of an object lead to, but classes and modules."""
    found, waiting = {}, [vars(root)]
    while waiting:
        for thing in gc.get_referents(waiting.pop()):
            if id(thing) not in found and not isinstance(thing, type | type(gc)):
                found[id(thing)] = thing
                waiting.append(thing)
    return list(found.values())


def test_no_image_is_reachable_from_the_source():
    units = film_units()

    assert any(isinstance(thing, torch.Tensor) for thing in reachable(units))
    assert not any(
        isinstance(thing, torch.Tensor)
        for thing in reachable(DpSgdSource(charged(), units.readings))
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_no_image_decides_how_another_is_augmented():
    families = ("color", "crop", "cutout", "flip", "scale", "rotate")
    images = torch.randn(60, 1, 16, 16, generator=generator(1))
    changed = images.clone()
    changed[7] = 100.0

    one, other = (augment_each(x, families, generator()) for x in (images, changed))

    different = (one != other).flatten(1).any(dim=1)
    assert different.nonzero()[:, 0].tolist() == [7]


def test_every_image_has_a_family_and_parameters_of_its_own():
    image = torch.randn(1, 1, 16, 16, generator=generator(1)).repeat(60, 1, 1, 1)

    flipped = augment_each(image, ("flip",), generator()) == image
    both = augment_each(image, ("flip", "color"), generator())

    assert 15 < int(flipped.flatten(1).all(dim=1).sum()) < 45
    means = both.mean(dim=(1, 2, 3)) - image[0].mean()
    assert 15 < int((means.abs() < 1e-6).sum()) < 45  # a mirrored image keeps its mean


def test_without_families_images_stay():
    images = torch.randn(3, 1, 16, 16, generator=generator())

    assert augment_each(images, (), generator()) is images
    assert augment_each(images[:0], ("flip",), generator()).shape == (0, 1, 16, 16)


slow = pytest.mark.slow  # Opacus takes seconds to load


@slow
def test_an_expert_is_recorded_before_the_first_epoch_and_after_each():
    experts = trained(dp_study(experts={"count": 2, "epochs": 3}))

    assert sorted(experts) == [0, 1]
    for weights in experts.values():
        assert weights.shape[0] == 4
        assert len(weights.unique(dim=0)) == 4  # no snapshot is a view of the last one


@slow
def test_the_layout_is_that_of_trajectory_matching():
    study = dp_study()
    start = SEED.child("experts").stream("expert-0")
    network = build_network(study.network, study.image, classes=3, generator=start)

    first = trained(study)[0][0]

    assert torch.equal(first, flat_weights(network))
    assert first.shape == (sum(Layout.of(network).sizes),)


@slow
def test_two_runs_with_one_seed_start_alike_and_are_noised_and_sampled_anew(monkeypatch):
    samples: list[list[int]] = []
    poisson = Records.poisson

    def spy(self, *args):
        sample = poisson(self, *args)
        samples.append(sorted(sample.rows.tolist()))
        return sample

    monkeypatch.setattr(Records, "poisson", spy)

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        one = trained()[0]
        first = samples.copy()
        samples.clear()
        torch.default_generator.manual_seed(0)
        other = trained()[0]

    assert torch.equal(one[0], other[0])
    assert bool((one[1:] != other[1:]).all())
    assert first != samples


@slow
def test_as_many_steps_are_taken_as_were_charged_whatever_was_sampled(monkeypatch):
    steps = []
    step = PrivateLearner.step

    def counted(self):
        step(self)
        steps.append(self.descent.steps)

    monkeypatch.setattr(PrivateLearner, "step", counted)
    monkeypatch.setattr(dp_sgd, "AT_ONCE", 2)
    study = dp_study(experts={"count": 2, "epochs": 2, "batch": 5})

    trained(study)
    trained(study, units=film_units(3))  # fewer than declared; most samples are empty

    planned = planned_steps(study.distill.experts, 24)
    assert steps == 2 * [*range(1, 11), *range(1, 11)]
    assert 2 * planned.steps == len(steps)


@slow
def test_without_noise_and_clip_a_step_is_plain_descent_on_all_units():
    study = dp_study(
        experts={"batch": 24, "families": (), "momentum": 0.0},
        privacy={"clip": 1e3, "averaging": 0},
    )
    ours = learner(study, sigma=None)
    network = build_network(study.network, study.image, classes=3, generator=generator())
    images, labels = films()
    loss = torch.nn.functional.cross_entropy(network((images / 255 - 0.5) / 0.25), labels)
    loss.backward()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter -= 0.1 * parameter.grad

    ours.step()

    assert_close(ours.average, flat_weights(network))


@slow
def test_what_is_recorded_is_the_moving_average_of_the_iterates():
    study = dp_study(privacy={"averaging": 0.75})
    ours = learner(study, sigma=1.0)
    expected = ours.average

    for _ in range(3):
        ours.step()
        iterate = torch.cat([p.detach().flatten() for p in ours.descent.parameters])
        expected = 0.75 * expected + 0.25 * iterate

    assert_close(ours.average, expected)
    assert not torch.allclose(ours.average, iterate)


@slow
@pytest.mark.parametrize(("unit", "most"), [("patient", 2), ("image", 1)])
def test_a_unit_gives_as_many_images_to_a_step_as_the_study_says(monkeypatch, unit, most):
    seen = []
    poisson = Records.poisson

    def spy(self, *args):
        sample = poisson(self, *args)
        seen.extend(torch.bincount(sample.owners).tolist())
        return sample

    monkeypatch.setattr(Records, "poisson", spy)
    study = dp_study(privacy={"unit": unit, "images_per_patient": 2}, experts={"batch": 20})

    trained(study, units=patient_units() if unit == "patient" else film_units())

    assert set(seen) == {most}


@slow
def test_only_experts_that_are_not_there_are_trained_by_one_reading():
    units = film_units()

    experts = trained(dp_study(experts={"count": 3}), units=units, store=Snapshots(0, 2))

    assert list(experts) == [1]
    assert list(units.readings) == ["experts"]


@slow
def test_classes_that_were_left_out_are_not_trained_on(monkeypatch):
    labels = set()
    load = PrivateLearner._load

    def spy(self, part):
        loaded = load(self, part)
        labels.update(loaded[1].tolist())
        return loaded

    monkeypatch.setattr(PrivateLearner, "_load", spy)

    study = dp_study(experts={"batch": 20})

    trained(study, training=charged(study, labels=(0, 2)))

    assert labels == {0, 2}


@slow
def test_progress_tells_epochs_and_nothing_of_patients():
    steps = []

    trained(dp_study(experts={"count": 2}), watch=steps.append)

    assert [(s.stage, s.done, s.total) for s in steps] == [
        ("training experts", done, 4) for done in (1, 2, 3, 4)
    ]
    assert [s.figures for s in steps] == [
        {"expert": number, "epoch": epoch} for number in (1, 2) for epoch in (1, 2)
    ]


@slow
def test_no_batch_of_patients_stays_in_memory():
    def batches() -> set[int]:
        return {
            id(thing)
            for thing in gc.get_objects()
            if type(thing) is torch.Tensor and thing.dim() == 4 and thing.shape[1:] == (1, 16, 16)
        }

    gc.collect()
    before = batches()
    units = film_units()

    experts = trained(units=units)

    gc.collect()
    after = batches() - before - {id(units._images)}
    assert len(experts) == 1
    assert after == set()


@slow
def test_experts_learn_where_there_is_little_noise():
    study = dp_study(
        experts={"epochs": 12, "batch": 24, "rate": 1.0, "families": ()}, privacy={"averaging": 0}
    )
    weights = trained(study, training=charged(study, sigma=0.05))[0][-1]
    network = build_network(study.network, study.image, classes=3, generator=generator())
    Layout.of(network).fill(network, weights)
    images, labels = films(60, seed=5)

    right = network((images / 255 - 0.5) / 0.25).argmax(dim=1) == labels

    assert right.float().mean() > 0.9


@slow
def test_a_rate_that_explodes_is_a_named_error():
    study = dp_study(experts={"rate": 10.0, "weight_decay": 0.99, "epochs": 12})

    with pytest.raises(DivergedError, match=r"^expert 0 is not finite after epoch \d+$") as caught:
        trained(study)

    assert caught.value.hint == "lower distill.experts.rate"


@slow
@pytest.mark.parametrize("method", ["mtt", "pruned-mtt"])
def test_matching_needs_nothing_but_the_experts(method):
    study, units, shelf = dp_study(method=method), film_units(), Shelf()
    store = Snapshots()
    assert isinstance(store, SnapshotStore)
    training = charged(study, labels=(0, 2))

    for number, weights in trained(study, units=units, training=training, store=store).items():
        shelf.keep(number, Expert(weights, Course.unrecorded()))
    source = DpSgdSource(training, units.readings)
    result = distill_mtt(source, study, seed=SEED, experts=shelf)

    assert source.accesses == 1
    assert result.labels.tolist() == [0, 0, 2, 2]
    assert not torch.equal(result.images, result.started_from)
    assert bool(result.images.isfinite().all())
