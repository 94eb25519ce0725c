from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from fedcondense.learning.partition import compose_partitions, expand_labels, expand_partitions


def test_parts_stand_top_left_bottom_left_top_right_bottom_right():
    quadrants = torch.tensor([[0.0, 2.0], [1.0, 3.0]]).repeat_interleave(4, 0)
    image = quadrants.repeat_interleave(4, 1).view(1, 1, 8, 8)

    views = expand_partitions(image, 2)

    assert views.shape == (4, 1, 8, 8)
    assert_close(views.mean(dim=(1, 2, 3)), torch.tensor([0.0, 1.0, 2.0, 3.0]))


def test_all_first_parts_come_before_any_second_part():
    images = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1).expand(2, 1, 8, 8)

    views = expand_partitions(images, 2)

    assert_close(views[:, 0, 0, 0], torch.tensor([1.0, 2.0] * 4))


def test_an_edge_is_enlarged_bilinearly_with_half_pixel_centres():
    # positions -.25, .25, .75, 1.25 of a row [0, 4], clamped: 0, 1, 3, 4
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, :2, 1] = 4

    top_left = expand_partitions(image, 2)[0, 0]

    assert_close(top_left[0], torch.tensor([0.0, 1.0, 3.0, 4.0]))


def test_a_partition_of_one_is_the_images_themselves():
    images = torch.randn(3, 1, 8, 8)

    assert expand_partitions(images, 1) is images
    assert compose_partitions(images, 1) is images


@given(n=st.integers(1, 4), partition=st.sampled_from([1, 2, 4]))
def test_labels_keep_step_with_views(n, partition):
    labels = torch.arange(n)
    images = labels.float().view(n, 1, 1, 1).expand(n, 1, 8, 8)

    views = expand_partitions(images, partition)

    assert torch.equal(views[:, 0, 0, 0].long(), expand_labels(labels, partition))


@given(partition=st.sampled_from([2, 4]), n=st.integers(1, 3))
def test_composing_is_undone_by_expanding_for_flat_images(partition, n):
    flat = torch.arange(float(n * partition**2)).view(-1, 1, 1, 1).expand(-1, 1, 16, 16)

    stored = compose_partitions(flat, partition)

    assert stored.shape == (n, 1, 16, 16)
    assert_close(expand_partitions(stored, partition), flat.contiguous(), atol=1e-4, rtol=0)
