"""Training images dealt to the sites of a simulation; a group never crosses a site."""

from __future__ import annotations

import re

import numpy as np
import torch

from fedcondense.config.scenario import Partition
from fedcondense.data.dataset import LabeledImages, group_members, groups_by_class
from fedcondense.errors import DataError

DRAWS = 1_000  # tries until no site is empty
LONGEST_NAME = 40  # of a site, see config.site.SiteName
UNKNOWN = "unknown"


def partition_sites(
    images: LabeledImages, how: Partition, generator: torch.Generator
) -> dict[str, LabeledImages]:
    """Deal the groups of `images` to named sites; every image goes to exactly one.

    - `dirichlet`: for each class, shares of the sites are drawn from Dirichlet(alpha) (Hsu et
      al. 2019, arXiv:1909.06335) and its groups dealt by them; drawn again while a site is empty;
    - `even`: each class's groups are dealt in turn;
    - `site`: the data says; a group that several sites saw goes to the site of its first image.

    Raises:
        DataError: fewer groups than sites, no draw without an empty site, or no sites named.
    """
    if how.kind == "site":
        return _parts(images, _named_sites(images))
    groups = groups_by_class(images)
    total = sum(len(of_class) for of_class in groups)
    if total < how.sites:
        raise DataError(
            f"{total} groups cannot fill {how.sites} sites", hint="lower partition.sites"
        )
    seed = int(torch.randint(2**63 - 1, (1,), generator=generator))
    rng = np.random.default_rng(seed)
    deal = _deal_skewed if how.kind == "dirichlet" else _deal_evenly
    numbers = deal(groups, how, rng)
    return _parts(images, {group: f"site-{number + 1}" for group, number in numbers.items()})


def _parts(images: LabeledImages, site_of: dict[str, str]) -> dict[str, LabeledImages]:
    """The images of each site; sites in natural order, so that site-2 comes before site-10."""
    rows: dict[str, list[int]] = {}
    for group, members in group_members(images).items():
        rows.setdefault(site_of[group], []).extend(members)
    return {
        site: images.select(torch.tensor(sorted(rows[site])))
        for site in sorted(rows, key=_natural_order)
    }


def _natural_order(name: str) -> list[tuple[str, int]]:
    return [
        (letters, int(digits or 0)) for letters, digits in re.findall(r"([^0-9]*)([0-9]*)", name)
    ]


def _deal_evenly(
    groups: list[list[str]], how: Partition, rng: np.random.Generator
) -> dict[str, int]:
    shuffled = [of_class[i] for of_class in groups for i in rng.permutation(len(of_class))]
    return {group: turn % how.sites for turn, group in enumerate(shuffled)}


def _deal_skewed(
    groups: list[list[str]], how: Partition, rng: np.random.Generator
) -> dict[str, int]:
    for _ in range(DRAWS):
        dealt = {
            group: site
            for of_class in groups
            for group, site in zip(of_class, _skewed_sites(len(of_class), how, rng), strict=True)
        }
        if len(set(dealt.values())) == how.sites:
            return dealt
    raise DataError(
        f"none of {DRAWS} draws gave each of {how.sites} sites an image",
        hint="raise partition.alpha or lower partition.sites",
    )


def _skewed_sites(n: int, how: Partition, rng: np.random.Generator) -> list[int]:
    """A site for each of `n` groups, in random order, in drawn shares."""
    shares = rng.dirichlet(np.full(how.sites, how.alpha))
    ends = np.rint(n * shares.cumsum()).astype(int)
    sites = np.searchsorted(ends, np.arange(n), side="right").clip(max=how.sites - 1)
    return rng.permutation(sites).tolist()


def _named_sites(images: LabeledImages) -> dict[str, str]:
    if images.sites is None:
        raise DataError("the data names no sites", hint="set partition.kind to dirichlet or even")
    names = _site_names(images.sites)
    first = {group: images.sites[rows[0]] for group, rows in group_members(images).items()}
    return {group: names[site] for group, site in first.items()}


def _site_names(sites: tuple[str, ...]) -> dict[str, str]:
    """A name that a site can have in settings, for each of the data's own; collisions numbered."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for site in sorted(set(sites)):
        slug = _slug(site) if site else UNKNOWN
        name, number = slug, 1
        while name in taken:
            number += 1
            name = f"{slug[: LONGEST_NAME - 4]}-{number}"
        names[site] = name
        taken.add(name)
    return names


def _slug(site: str) -> str:
    plain = re.sub(r"[^a-z0-9_-]+", "-", site.lower()).strip("-_")
    return plain[:LONGEST_NAME].rstrip("-_") or "site"
