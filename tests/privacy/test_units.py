from __future__ import annotations

import pytest
import torch
from dp_sgd_kit import film_units, films, patient_units
from hypothesis import given
from hypothesis import strategies as st

from fedcondense.errors import DataError
from fedcondense.privacy.units import Records, Sample, UnitImages, split


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def records_of(owners: list[int]) -> Records:
    images, labels = films(len(owners))
    return Records(images, labels, torch.tensor(owners), 1 + max(owners))


def test_every_image_is_a_unit_of_its_own():
    records = film_units(5).read("experts")

    assert records.owners.tolist() == [0, 1, 2, 3, 4]
    assert records.units == 5


def test_all_images_of_a_patient_are_one_unit_wherever_they_stand():
    units = UnitImages.by_patient(*films(5), ["x", "y", "x", "z", "y"])

    records = units.read("experts")

    assert records.owners.tolist() == [0, 1, 0, 2, 1]
    assert records.units == 3


def test_an_image_without_a_patient_is_refused():
    with pytest.raises(DataError) as caught:
        UnitImages.by_patient(*films(3), ["x", "", "x"])

    assert caught.value.message == "unit patient: an image has no patient id"
    assert 'privacy.unit = "image"' in caught.value.hint


def test_every_reading_is_listed_under_its_mechanism():
    units = film_units()
    readings = units.readings
    assert list(readings) == []

    units.read("class-counts")
    units.read("experts", labels=(0, 2))

    assert list(readings) == ["class-counts", "experts"]


def test_a_class_is_left_out_image_by_image():
    units = UnitImages.by_patient(*films(6), ["x", "y", "z", "x", "y", "w"])  # classes 0 1 2 0 1 2

    records = units.read("experts", labels=(0, 2))

    assert records.labels.tolist() == [0, 2, 0, 2]
    assert records.owners.tolist() == [0, 1, 0, 2]
    assert records.units == 3
    assert torch.equal(records.images, films(6)[0][[0, 2, 3, 5]])


def test_a_site_without_a_remaining_image_is_no_error():
    records = film_units(3).read("experts", labels=())

    assert records.units == 0
    assert records.poisson(0.5, 1, generator()).units == 0


def test_every_unit_comes_with_the_declared_probability_and_on_its_own():
    records, secret, draws = records_of(list(range(30))), generator(), 2_000
    seen = torch.zeros(draws, 30)

    for draw in range(draws):
        seen[draw, records.poisson(0.3, 1, secret).rows] = 1

    shares = seen.mean(dim=0)
    assert (shares - 0.3).abs().max() < 4.5 * (0.21 / draws) ** 0.5
    # a binomial's variance: fixed batches would have none
    assert seen.sum(dim=1).var() == pytest.approx(30 * 0.21, rel=5 * (2 / draws) ** 0.5)
    together = torch.corrcoef(seen.T) - torch.eye(30)
    assert together.abs().max() < 5 / draws**0.5


def test_a_probability_of_one_takes_everybody():
    sample = patient_units().read("experts").poisson(1.0, 6, generator())

    assert sorted(sample.rows.tolist()) == list(range(24))
    assert sample.units == 4


def test_a_sample_may_be_empty():
    sample = film_units().read("experts").poisson(1e-9, 1, generator())

    assert sample.units == len(sample.rows) == len(sample.owners) == 0


@given(owners=st.lists(st.integers(0, 5), min_size=1, max_size=30), most=st.integers(1, 4))
def test_no_unit_gives_more_images_than_it_may(owners, most):
    owners = torch.tensor(owners).unique(return_inverse=True)[1]
    records = records_of(owners.tolist())

    sample = records.poisson(0.7, most, generator(len(owners)))

    given_by = owners[sample.rows]
    for number in range(sample.units):
        mine = given_by[sample.owners == number]
        assert len(mine.unique()) == 1  # one unit's images stand together
        assert len(mine) == min(most, int((owners == mine[0]).sum()))
    assert sample.owners.tolist() == sorted(sample.owners.tolist())
    assert len(sample.rows.unique()) == len(sample.rows)


def test_each_image_of_a_patient_is_as_likely_to_be_given():
    records, secret = records_of([0, 0, 0, 1]), generator()
    drawn = [int(records.poisson(1.0, 1, secret).rows[0]) for _ in range(1_200)]

    for row in (0, 1, 2):
        assert drawn.count(row) == pytest.approx(400, abs=5 * (1_200 * 2 / 9) ** 0.5)


@given(counts=st.lists(st.integers(1, 5), min_size=1, max_size=40), most=st.integers(1, 12))
def test_parts_hold_whole_units_and_stay_small(counts, most):
    owners = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    whole = Sample(torch.randperm(len(owners), generator=generator()), owners, len(counts))

    parts = split(whole, most)

    assert torch.equal(torch.cat([part.rows for part in parts]), whole.rows)
    found = [torch.bincount(part.owners, minlength=part.units).tolist() for part in parts]
    assert [count for part in found for count in part] == counts
    assert all(len(part.rows) < most + max(counts) for part in parts)


def test_an_empty_sample_is_one_empty_part():
    empty = Sample(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), 0)

    assert split(empty, 4) == [empty]
