from __future__ import annotations

import pytest
import torch
from audit_kit import PARTITIONED, Population
from torch.testing import assert_close

from fedcondense.learning.partition import compose_partitions
from fedcondense.learning.pixels import normalise
from fedcondense.privacy.likeness import (
    RIDGES,
    Contrast,
    Kind,
    Space,
    features,
    shown_by,
    views,
)

POPULATION = Population(0)
REAL = POPULATION.admit(10, films=(1,))
PIXELS = normalise(REAL.images, PARTITIONED.image)
CROSS = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])


def test_directions_are_measured_by_how_patients_of_a_class_differ():
    # variances 2 and 1/2: (2, 1) is (sqrt 2, sqrt 2) in standard deviations
    contrast = Contrast.of(CROSS, torch.zeros(4, dtype=torch.int64), classes=1, ridge=0.0)

    direction = contrast.directions(torch.tensor([[2.0, 1.0]]), torch.tensor([0]))

    assert_close(direction, torch.full((1, 2), 0.5**0.5))


def test_a_ridge_adds_a_share_of_the_mean_variance_to_each():
    # mean variance 5/4, so (2 + 5/4, 1/2 + 5/4)
    contrast = Contrast.of(CROSS, torch.zeros(4, dtype=torch.int64), classes=1, ridge=1.0)

    assert_close(contrast.triangle, torch.tensor([3.25, 1.75]).sqrt().diag())


def test_what_a_class_shares_is_taken_away():
    shifted = torch.cat([CROSS, CROSS + 100])
    labels = torch.tensor([0, 1]).repeat_interleave(4)

    directions = Contrast.of(shifted, labels, classes=2, ridge=0.1).directions(shifted, labels)

    assert_close(directions[:4], directions[4:], atol=1e-4, rtol=0)
    assert_close(directions.norm(dim=1), torch.ones(8))


@pytest.mark.parametrize("space", list(Space))
def test_a_picture_is_like_itself_and_no_stranger(space):
    found = features(PIXELS, space)
    contrast = Contrast.of(found, REAL.labels, classes=2, ridge=RIDGES[space])

    cosines = contrast.directions(found, REAL.labels) @ contrast.directions(found, REAL.labels).T

    assert_close(cosines.diagonal(), torch.ones(len(REAL)))
    assert cosines.fill_diagonal_(0).max() < 0.95


def test_the_embedding_is_public_and_always_the_same():
    first = features(PIXELS[:3], Space.EMBEDDING)
    torch.rand(1)

    assert_close(features(PIXELS[:3], Space.EMBEDDING), first, rtol=0, atol=0)
    assert first.shape == (3, 16 * 4 * 4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [16, 18, 32, 50, 112])
def test_large_and_small_images_have_features(size, channels):
    images = torch.randn(2, channels, size, size)

    for space in Space:
        found = features(images, space)
        assert torch.isfinite(found).all()
        assert found.shape[1] <= 1_024 * channels


def test_views_are_whole_images_tiles_and_four_quadrants():
    labels = torch.tensor([0, 1])
    stored = torch.randn(2, 1, 16, 16)

    shown = list(views(stored, labels, PIXELS, partition=1))

    assert [view.kind for view in shown] == [Kind.WHOLE, Kind.TILES, *[Kind.QUADRANTS] * 4]
    assert [len(view.synthetic) for view in shown] == [2, 8, 2, 2, 2, 2]
    assert shown[1].labels.tolist() == [0, 1] * 4
    assert_close(shown[3].synthetic, stored[..., :8, 8:])
    assert_close(shown[3].real, PIXELS[..., :8, 8:])


def test_a_tile_of_a_real_start_looks_like_its_patient_made_small():
    stored = compose_partitions(PIXELS[:4], 2)

    shown = list(views(stored, torch.tensor([0]), PIXELS, partition=2))

    tiles = next(view for view in shown if view.kind is Kind.TILES)
    assert_close(tiles.synthetic, tiles.real[:4])


def test_a_partitioned_set_would_show_patients_in_its_tiles():
    assert shown_by(1) is Kind.WHOLE
    assert shown_by(2) is shown_by(4) is Kind.TILES
