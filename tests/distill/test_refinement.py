"""How methods begin in a later round: with their own last set, and networks that know more."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import pytest
import torch

from fedcondense.distill import idm
from fedcondense.distill.dm import distill_dm
from fedcondense.distill.experts import Learner
from fedcondense.distill.idm import distill_idm
from fedcondense.distill.mtt import TrajectoryMatching
from fedcondense.distill.refinement import (
    begun,
    begun_logits,
    begun_networks,
    common_start,
    matching_rows,
)
from fedcondense.distill.source import PlainSource
from fedcondense.distill.synthetic import SyntheticSet
from fedcondense.distill.trajectories import flat_weights
from fedcondense.learning.networks import Network, build_network
from fedcondense.learning.randomness import Seed
from fedcondense.learning.refinement import OwnSet, Refinement

from .conftest import small_study


def network(seed: int = 7) -> Network:
    study = small_study("idm")
    generator = torch.Generator().manual_seed(seed)
    return build_network(
        study.network, study.image, classes=len(study.classes), generator=generator
    )


def with_refinement(source: PlainSource, refinement: Refinement) -> PlainSource:
    other = copy(source)  # the fixture is shared
    other.refinement = refinement
    return other


def set_of(labels: list[int], value: float = 0.0) -> SyntheticSet:
    images = torch.full((len(labels), 1, 4, 4), value)
    return SyntheticSet(images, torch.tensor(labels), images)


def own_of(labels: list[int], size: int = 4, **learned: object) -> OwnSet:
    images = torch.arange(len(labels)).float().view(-1, 1, 1, 1).expand(-1, 1, size, size) + 1
    return OwnSet(images.clone(), torch.tensor(labels), **learned)  # type: ignore[arg-type]


def test_rows_are_matched_class_by_class_in_the_order_of_each():
    ours, theirs = matching_rows(torch.tensor([0, 0, 2, 2]), torch.tensor([1, 1, 2, 2, 0, 0]))

    assert ours.tolist() == [0, 1, 2, 3]
    assert theirs.tolist() == [2, 3, 4, 5]


def test_a_class_of_another_number_of_images_is_not_matched():
    ours, theirs = matching_rows(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1]))

    assert (ours.tolist(), theirs.tolist()) == ([2, 3], [1, 2])


def test_the_own_last_set_takes_the_place_of_noise_and_is_what_it_started_from(source):
    source = with_refinement(source, Refinement(own_of([0, 0, 1, 1])))

    start = begun(source, set_of([0, 0, 1, 1]))

    assert start.images[:, 0, 0, 0].tolist() == [1, 2, 3, 4]
    assert torch.equal(start.started_from, start.images)


def test_a_class_that_is_new_at_the_site_begins_as_in_the_first_round(source):
    source = with_refinement(source, Refinement(own_of([1, 1])))

    start = begun(source, set_of([0, 0, 1, 1], value=-5.0))

    assert start.images[:, 0, 0, 0].tolist() == [-5, -5, 1, 2]


def test_a_class_that_the_site_has_no_more_is_left_behind(source):
    source = with_refinement(source, Refinement(own_of([0, 0, 1, 1])))

    start = begun(source, set_of([1, 1]))

    assert start.images[:, 0, 0, 0].tolist() == [3, 4]


def test_soft_labels_go_on_from_where_they_were(source):
    soft = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    source = with_refinement(source, Refinement(own_of([0, 1], soft=soft)))

    logits = begun_logits(source, torch.tensor([0, 1]), torch.zeros(2, 2))

    torch.testing.assert_close(logits.softmax(dim=1), soft)
    assert torch.isfinite(logits).all()


def test_without_a_last_set_everything_begins_as_in_the_first_round(source):
    first = set_of([0, 1])

    assert begun(source, first) is first
    assert begun_networks(source) == []
    assert common_start(source) is None


def test_networks_that_are_trained_further_are_copies(source):
    given = network()
    source = with_refinement(source, Refinement(networks=(given,)))
    before = flat_weights(given)

    (copy,) = begun_networks(source)
    with torch.no_grad():
        next(copy.parameters()).add_(1)

    assert torch.equal(flat_weights(given), before)


def test_the_first_networks_of_the_queue_know_the_global_set(source):
    given = (network(1), network(2))
    source = with_refinement(source, Refinement(networks=given))

    queue = idm.online_queue(source, small_study("idm", queue_start=3), Seed(0))

    weights = [flat_weights(member.network) for member in queue.members]
    assert torch.equal(weights[0], flat_weights(given[0]))
    assert torch.equal(weights[1], flat_weights(given[1]))
    assert len(weights) == 3


def test_a_queue_that_goes_on_from_a_checkpoint_has_the_networks_of_the_checkpoint(source):
    source = with_refinement(source, Refinement(networks=(network(1),)))
    study = small_study("idm")
    queue = idm.online_queue(source, study, Seed(0))
    queue.learn(source)
    kept = queue.state()

    again = idm.online_queue(source, study, Seed(0))
    again.restore(kept)

    for name, tensor in again.state().items():
        assert torch.equal(tensor, kept[name]), name


def test_every_expert_begins_at_the_one_public_point(source):
    given = network()
    source = with_refinement(source, Refinement(networks=(given,)))

    starts = [Learner(source, small_study("mtt"), number, Seed(1)).weights[0] for number in (0, 1)]

    assert all(torch.equal(start, flat_weights(given)) for start in starts)


def test_trajectory_matching_goes_on_with_its_own_step_size(source, experts):
    study = small_study("mtt")
    source = with_refinement(source, Refinement(replace(own_of([0], 16), student_rate=0.125)))

    matching = TrajectoryMatching(source, study, Seed(0), experts)

    rate = torch.nn.functional.softplus(matching.moving["rate"].value)
    assert float(rate) == pytest.approx(0.125)


@pytest.mark.parametrize("method", [distill_dm, distill_idm])
def test_a_second_round_is_another_computation_than_the_first(source, method):
    study = small_study("dm" if method is distill_dm else "idm")
    first = method(source, study, seed=Seed(1))
    own = OwnSet(first.images, first.labels)

    second = method(with_refinement(source, Refinement(own, (network(),))), study, seed=Seed(1))

    assert torch.equal(second.started_from, first.images)
    assert not torch.equal(second.images, first.images)
