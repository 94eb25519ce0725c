from __future__ import annotations

import numpy as np
import pytest
import torch
from audit_kit import PARTITIONED, STUDY, Population, decoded, noise_set, shown

from fedcondense.learning.partition import compose_partitions
from fedcondense.learning.pixels import normalise
from fedcondense.privacy.likeness import Kind
from fedcondense.privacy.matches import (
    closest_pictures,
    correlation,
    signal_to_noise,
    structural_similarity,
    to_pixels,
)

TRAIN = Population(2).admit(10, films=(1,))


def flat(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 16, 16)


def test_correlation_knows_neither_brightness_nor_contrast():
    ramp = torch.arange(0, 100, dtype=torch.uint8).view(1, 1, 10, 10)

    assert correlation(ramp, 2 * ramp + 7) == pytest.approx([1.0])
    assert correlation(ramp, 255 - ramp) == pytest.approx([-1.0])
    assert correlation(ramp, torch.full_like(ramp, 9)) == pytest.approx([0.0])


def test_correlation_is_a_cosine_of_what_deviates():
    # deviations (-1, 0, 1) and (0, -1, 1): product 1, norms sqrt 2
    one = torch.tensor([0, 1, 2], dtype=torch.uint8).view(1, 1, 1, 3)
    other = torch.tensor([1, 0, 2], dtype=torch.uint8).view(1, 1, 1, 3)

    assert correlation(one, other) == pytest.approx([0.5])


def test_signal_to_noise_is_in_decibels_of_full_range():
    # a difference of 25.5 everywhere would be 20 dB; 51 is 13.98
    assert signal_to_noise(flat(100), flat(151)) == pytest.approx([20 * np.log10(5)])
    assert signal_to_noise(flat(100), flat(100)) == pytest.approx([99.0])


def test_similarity_of_flat_pictures_is_that_of_their_brightness():
    # eq. 13 with no variance: (2 a b + C1) / (a^2 + b^2 + C1), C1 = 6.5025
    expected = (2 * 100 * 150 + 6.5025) / (100**2 + 150**2 + 6.5025)

    assert structural_similarity(flat(100), flat(150)) == pytest.approx([expected])


def test_similarity_is_one_of_equals_and_falls_with_noise():
    noise = torch.randint(-40, 40, TRAIN.images.shape, generator=torch.Generator().manual_seed(0))
    noisy = (TRAIN.images + noise).clamp(0, 255).byte()

    assert structural_similarity(TRAIN.images, TRAIN.images) == pytest.approx(np.ones(len(TRAIN)))
    assert structural_similarity(TRAIN.images, noisy).max() < 0.95


def test_grey_values_are_those_of_the_studys_constants():
    values = torch.tensor([-9.0, -2.0, 0.0, 2.0, 9.0]).view(1, 1, 1, 5)

    assert to_pixels(values, STUDY.image).flatten().tolist() == [0, 0, 128, 255, 255]


def test_every_stored_image_has_a_match_of_its_class():
    matches = closest_pictures(noise_set(3, 0), study=STUDY, train=TRAIN)

    assert sorted(match.stored for match in matches) == list(range(6))
    assert all(match.label == TRAIN.labels[match.row] for match in matches)
    assert all(match.kind is Kind.WHOLE for match in matches)


def test_a_training_image_in_the_set_is_shown_beside_itself():
    arrays = noise_set(3, 0)
    arrays.images[4] = shown(TRAIN).images[15]

    first, second, *_ = closest_pictures(arrays, study=STUDY, train=TRAIN)

    assert (first.stored, first.row, first.label) == (4, 15, 1)
    assert min(first.likeness, first.correlation, first.similarity) > 0.98
    assert first.ratio > 35
    assert np.array_equal(first.training, TRAIN.images[15].numpy())
    assert second.likeness < 0.9


def test_a_tile_is_shown_beside_its_patient_made_as_coarse():
    pixels = normalise(TRAIN.images, PARTITIONED.image)
    stored = torch.cat([compose_partitions(pixels[first : first + 4], 2) for first in (0, 10)])
    arrays = decoded(stored, torch.tensor([0, 1]), PARTITIONED)

    matches = closest_pictures(arrays, study=PARTITIONED, train=TRAIN)

    tiles = {(m.stored, m.part): m for m in matches if m.kind is Kind.TILES}
    assert len(tiles) == 8
    assert len(matches) == 10
    assert [tiles[0, part].row for part in range(4)] == [0, 1, 2, 3]
    assert [tiles[1, part].row for part in range(4)] == [10, 11, 12, 13]
    assert min(m.correlation for m in tiles.values()) > 0.98
