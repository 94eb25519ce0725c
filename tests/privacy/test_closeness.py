from __future__ import annotations

import numpy as np
import pytest
import torch
from audit_kit import STUDY, Population, noise_set, shown
from torch.testing import assert_close

from fedcondense.learning.randomness import Seed
from fedcondense.privacy.closeness import (
    ENOUGH_UNSEEN,
    Hospital,
    Scores,
    compare,
    deal_folds,
    noise_as_strong,
    under_noise,
)
from fedcondense.privacy.likeness import Kind, Space

POPULATION = Population(1)
TRAIN, HELD_OUT = POPULATION.admit(16), POPULATION.admit(4)
HOSPITAL = Hospital.of(TRAIN, HELD_OUT, STUDY.image, Seed(0))


def folds_of(groups: np.ndarray, held: int) -> np.ndarray:
    labels = np.zeros(len(groups), np.int64)
    return deal_folds(labels, groups, groups < held, torch.Generator().manual_seed(0))


def test_the_images_of_a_group_share_their_fold():
    folds = {
        group: set(HOSPITAL.folds[HOSPITAL.groups == group]) for group in HOSPITAL.groups.tolist()
    }

    assert all(len(found) == 1 for found in folds.values())


def test_fold_zero_is_what_was_held_out():
    assert np.array_equal(HOSPITAL.trained, np.arange(len(HOSPITAL.folds)) < len(TRAIN))


def test_every_other_fold_is_about_as_large():
    counts = np.bincount(folds_of(np.arange(50), held=10))

    assert counts.tolist() == [10] * 5


def test_where_enough_is_held_out_no_training_image_plays_held_out():
    folds = folds_of(np.arange(5 * ENOUGH_UNSEEN), held=ENOUGH_UNSEEN)

    assert set(folds) == {-1, 0}


def test_no_more_folds_are_dealt_than_make_enough():
    folds = folds_of(np.arange(5 * ENOUGH_UNSEEN // 2), held=ENOUGH_UNSEEN // 2)

    assert np.bincount(folds + 1)[1:].tolist() == [ENOUGH_UNSEEN // 2] * 2


def test_a_picture_stands_out_by_the_spread_of_all_cosines():
    ours = torch.tensor([[1.0, 0.0]])
    theirs = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])

    scores = Scores.of(ours, theirs)

    # cosines 1, 0, -1, 0: mean 0, variance 1/2
    assert scores.cosine.tolist() == [1.0]
    assert scores.standing == pytest.approx([2**0.5])


def test_each_kind_and_space_is_compared_by_class():
    found = list(compare(noise_set(3, 0), HOSPITAL, partition=1))

    assert [(kind, space) for kind, space, _ in found] == [(k, s) for k in Kind for s in Space]
    assert all([one.label for one in classes] == [0, 1] for *_, classes in found)


def test_a_unit_is_a_stored_image_or_a_tile():
    units = {
        kind: (len(classes[0].ours.cosine), len(classes[0].nearest))
        for kind, _, classes in compare(noise_set(3, 0), HOSPITAL, partition=1)
    }

    assert units == {Kind.WHOLE: (3, 3), Kind.TILES: (12, 12), Kind.QUADRANTS: (3, 12)}


def test_unseen_are_one_image_of_each_group_of_all_folds():
    _, _, classes = next(compare(noise_set(3, 0), HOSPITAL, partition=1))

    assert len(classes[0].unseen.cosine) == HOSPITAL.group_count(HOSPITAL.of_class(0)) == 20


def test_noise_is_drawn_in_pixels_of_what_would_show_a_patient():
    veiled = {
        (kind, space): len(classes[0].veiled)
        for kind, space, classes in compare(noise_set(3, 0), HOSPITAL, partition=1)
    }

    assert veiled.pop((Kind.WHOLE, Space.PIXELS)) == 2
    assert set(veiled.values()) == {0}


def test_noise_is_as_strong_as_what_it_hides():
    own = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 2.0]])

    first, again = (torch.Generator().manual_seed(1) for _ in range(2))

    assert_close(noise_as_strong(own, first).norm(dim=1), torch.tensor([5.0, 2.0]))
    assert_close(under_noise(own, again) - own, noise_as_strong(own, again.manual_seed(1)))


def test_an_image_of_the_training_set_is_next_to_its_own_group():
    _, _, classes = next(compare(shown(TRAIN.select(torch.arange(5))), HOSPITAL, partition=1))

    assert np.array_equal(classes[0].nearest, HOSPITAL.groups[:5])
    assert classes[0].ours.cosine.min() > 0.98


def test_strangers_are_as_close_as_unseen_patients():
    """Medians of three populations; a biased measure would shift all of them."""
    shifts = []
    for seed in range(3):
        population = Population(10 + seed)
        hospital = Hospital.of(population.admit(16), population.admit(4), STUDY.image, Seed(0))
        strangers = shown(population.admit(20, films=(1,)))
        _, _, classes = next(compare(strangers, hospital, partition=1))
        shifts += [np.median(c.ours.cosine) - np.median(c.unseen.cosine) for c in classes]

    assert abs(np.mean(shifts)) < 0.05
