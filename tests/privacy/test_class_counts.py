from __future__ import annotations

import pytest
import torch
from dp_sgd_kit import film_units, films, patient_units
from hypothesis import given
from hypothesis import strategies as st

from fedcondense.privacy.class_counts import ClassCounts, noised_class_counts
from fedcondense.privacy.units import UnitImages

PATIENTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=25)


def clean(labels: list[int], patients: list[str]) -> torch.Tensor:
    images, _ = films(len(labels))
    units = UnitImages.by_patient(images, torch.tensor(labels, dtype=torch.int64), patients)
    return noised_class_counts(units, 4, sigma=0.0).noised


def test_a_patient_counts_as_one_in_all():
    # x has films of classes 0, 0, 1: two thirds and one third; y one of class 3
    counts = clean([0, 0, 1, 3], ["x", "x", "x", "y"])

    assert counts.tolist() == pytest.approx([2 / 3, 1 / 3, 0, 1])


def test_with_unit_image_they_are_plain_counts():
    assert noised_class_counts(film_units(7), 3, sigma=0.0).noised.tolist() == [3, 2, 2]


@given(films_of=PATIENTS)
def test_leaving_a_patient_out_changes_them_by_a_norm_of_one_at_most(films_of):
    labels, patients = [label for _, label in films_of], [str(p) for p, _ in films_of]
    gone = patients[0]
    kept = [row for row, patient in enumerate(patients) if patient != gone]

    without = clean([labels[row] for row in kept], [patients[row] for row in kept])

    assert (clean(labels, patients) - without).norm() <= 1 + 1e-12


def test_the_noise_has_the_charged_standard_deviation():
    draws = 100_000

    noised = noised_class_counts(film_units(3), draws).noised[3:]

    # the sum of squares is chi-square of `draws` degrees; 5 standard deviations of it
    assert float((noised / 40).square().sum()) == pytest.approx(draws, abs=5 * (2 * draws) ** 0.5)
    assert abs(float(noised.mean())) < 5 * 40 / draws**0.5


def test_they_are_noised_once_and_anew_for_every_reading():
    units = patient_units()

    one, other = noised_class_counts(units, 3), noised_class_counts(units, 3)

    assert torch.equal(one.noised, one.noised)
    assert not torch.equal(one.noised, other.noised)
    assert list(units.readings) == ["class-counts", "class-counts"]


def test_a_class_below_the_least_is_left_out():
    counts = ClassCounts(torch.tensor([99.9, 100.0, -3.0, 250.0], dtype=torch.float64))

    assert counts.kept(100) == (1, 3)
    assert counts.kept(1_000) == ()
