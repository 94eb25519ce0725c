from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedcondense.config.scenario import Partition
from fedcondense.data.dataset import LabeledImages
from fedcondense.data.partition import partition_sites
from fedcondense.errors import DataError


def _images(labels: list[int], groups: list[str], sites: list[str] | None = None) -> LabeledImages:
    """Each image's pixels hold its row number, so that it can be found again."""
    rows = torch.arange(len(labels))
    pixels = torch.zeros(len(labels), 1, 16, 16, dtype=torch.uint8)
    pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = rows % 256, rows // 256
    return LabeledImages(
        pixels,
        torch.tensor(labels),
        ("a", "b"),
        tuple(groups),
        None if sites is None else tuple(sites),
        None,
    )


def _rows(images: LabeledImages) -> list[int]:
    corner = images.images[:, 0, 0, :2].long()
    return (corner[:, 0] + 256 * corner[:, 1]).tolist()


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _message(images: LabeledImages, how: Partition) -> str:
    with pytest.raises(DataError) as caught:
        partition_sites(images, how, _generator())
    assert caught.value.hint
    return caught.value.message


@st.composite
def _columns(draw: st.DrawFn) -> tuple[list[int], list[str], list[str]]:
    """Labels, groups, sites; the first rows make sure of twelve groups."""
    n = draw(st.integers(24, 80))
    labels = st.lists(st.integers(0, 1), min_size=n, max_size=n)
    groups = [f"g{row % 12 if row < 24 else draw(st.integers(0, n))}" for row in range(n)]
    site = st.sampled_from(["", "St. Mary's", "north", "NORTH"])
    return draw(labels), groups, draw(st.lists(site, min_size=n, max_size=n))


@given(
    columns=_columns(),
    kind=st.sampled_from(["dirichlet", "even", "site"]),
    sites=st.integers(1, 4),
    alpha=st.floats(0.3, 100),
    seed=st.integers(0, 2**31),
)
def test_a_partition_loses_no_image_cuts_no_group_and_leaves_no_site_empty(
    columns, kind, sites, alpha, seed
):
    images = _images(*columns)

    parts = partition_sites(
        images, Partition(kind=kind, sites=sites, alpha=alpha), _generator(seed)
    )

    assert sorted(row for part in parts.values() for row in _rows(part)) == list(range(len(images)))
    owners = [group for part in parts.values() for group in set(part.groups)]
    assert len(owners) == len(set(owners))
    assert all(len(part) for part in parts.values())
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,39}", name) for name in parts)


@pytest.mark.parametrize("kind", ["dirichlet", "even"])
def test_equal_seeds_deal_alike_and_others_do_not(kind):
    images = _images([0, 1] * 50, [f"g{row}" for row in range(100)])
    how = Partition(kind=kind, sites=3)

    first, again, other = (
        {name: _rows(part) for name, part in partition_sites(images, how, _generator(s)).items()}
        for s in (1, 1, 2)
    )

    assert first == again != other
    assert list(first) == ["site-1", "site-2", "site-3"]


def test_sites_stand_in_the_order_of_their_numbers():
    images = _images([0] * 12, [f"g{row}" for row in range(12)])

    parts = partition_sites(images, Partition(kind="even", sites=12), _generator())

    assert list(parts) == [f"site-{number}" for number in range(1, 13)]


def test_even_parts_hold_equally_many_of_each_class():
    images = _images([0] * 40 + [1] * 20, [f"g{row}" for row in range(60)])

    parts = partition_sites(images, Partition(kind="even", sites=4), _generator())

    assert [part.counts().tolist() for part in parts.values()] == [[10, 5]] * 4


def _skew(alpha: float) -> float:
    """Mean distance of a site's share of class a from one half, over ten partitions."""
    images = _images([0, 1] * 200, [f"g{row}" for row in range(400)])
    how = Partition(kind="dirichlet", sites=4, alpha=alpha)
    shares = [
        part.counts()[0].item() / len(part)
        for seed in range(10)
        for part in partition_sites(images, how, _generator(seed)).values()
    ]
    return sum(abs(share - 0.5) for share in shares) / len(shares)


def test_a_small_alpha_is_uneven_and_a_large_one_even():
    assert _skew(10_000.0) < 0.02
    assert _skew(0.2) > 0.25


def test_the_sites_of_the_data_are_kept_under_names_for_settings():
    sites = ["St. Mary's", "north", "", "NORTH", "病院", "n" * 60]
    images = _images([0, 1] * 3, list("abcdef"), sites)

    parts = partition_sites(images, Partition(kind="site"), _generator())

    assert {name: _rows(part) for name, part in parts.items()} == {
        "st-mary-s": [0],
        "north": [3],
        "north-2": [1],
        "unknown": [2],
        "site": [4],
        "n" * 40: [5],
    }


def test_a_group_that_several_sites_saw_stays_together_at_the_first():
    images = _images([0, 1, 0], ["a", "b", "a"], ["x", "x", "y"])

    parts = partition_sites(images, Partition(kind="site"), _generator())

    assert list(parts) == ["x"]


def test_data_without_sites_cannot_be_parted_by_site():
    images = _images([0, 1], ["a", "b"])

    assert _message(images, Partition(kind="site")) == "the data names no sites"


@pytest.mark.parametrize("kind", ["dirichlet", "even"])
def test_fewer_groups_than_sites_are_refused(kind):
    images = _images([0, 1, 0, 1], ["a", "a", "b", "c"])

    assert _message(images, Partition(kind=kind, sites=4)) == "3 groups cannot fill 4 sites"


def test_a_skew_that_leaves_a_site_empty_every_time_is_refused():
    images = _images([0, 1] * 10, [f"g{row}" for row in range(20)])
    how = Partition(kind="dirichlet", sites=20, alpha=0.01)

    assert _message(images, how) == "none of 1000 draws gave each of 20 sites an image"
