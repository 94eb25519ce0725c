from __future__ import annotations

import torch
from torch import nn

from fedcondense.distill.trajectories import (
    Course,
    Expert,
    ExpertStore,
    Layout,
    Shelf,
    flat_weights,
)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))


def test_the_flat_vector_holds_all_parameters_in_the_networks_order():
    net = network()

    flat = flat_weights(net)

    assert torch.equal(flat, nn.utils.parameters_to_vector(net.parameters()))
    assert Layout.of(net).sizes == [6, 2, 2, 1]


def test_a_snapshot_does_not_follow_the_network():
    net = network()
    before = flat_weights(net)

    with torch.no_grad():
        net[0].weight += 1

    assert torch.equal(flat_weights(net)[:6], before[:6] + 1)
    assert not torch.equal(flat_weights(net), before)


def test_a_network_of_one_tensor_gives_a_copy_too():
    net = nn.Linear(3, 2, bias=False)

    assert flat_weights(net).data_ptr() != net.weight.data_ptr()


def test_filling_a_network_with_its_own_vector_restores_it():
    net, other = network(), network()

    Layout.of(other).fill(other, flat_weights(net))

    assert torch.equal(flat_weights(other), flat_weights(net))


def test_the_named_tensors_are_views_through_which_gradients_pass():
    net = network()
    flat = flat_weights(net).requires_grad_()

    tensors = Layout.of(net).tensors(flat)
    (gradient,) = torch.autograd.grad(tensors["1.weight"].sum(), flat)

    assert [tuple(t.shape) for t in tensors.values()] == [(2, 3), (2,), (1, 2), (1,)]
    assert gradient.tolist() == [0] * 8 + [1, 1] + [0]


def test_a_shelf_gives_back_what_was_put_on_it():
    shelf = Shelf()
    weights = torch.arange(6.0).view(3, 2)
    course = Course(torch.tensor([2.0, 1.0]), torch.tensor([0.25, 0.5]))

    shelf.keep(4, Expert(weights, course))

    assert isinstance(shelf, ExpertStore)
    assert shelf.has(4)
    assert not shelf.has(0)
    assert torch.equal(shelf.weights(4, 2), weights[2])
    assert shelf.course(4) is course


def test_a_course_may_be_unrecorded():
    assert Course(torch.tensor([2.0]), torch.tensor([0.25])).recorded

    assert not Course.unrecorded().recorded
    assert len(Course.unrecorded().accuracies) == 0
