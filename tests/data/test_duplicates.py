from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fedcondense.config.site import ImageNpz, Phantoms
from fedcondense.config.study import ImageSpec
from fedcondense.data import duplicates
from fedcondense.data.duplicates import LIKENESS, SIDE, SKETCH_LIKENESS, find_duplicates
from fedcondense.data.loading import load_images
from fedcondense.data.phantoms import draw_phantoms
from fedcondense.data.radiograph import fit
from fedcondense.progress import Step


def _own(n: int) -> list[bytes]:
    return [str(row).encode() for row in range(n)]


def _thumbnails(films: np.ndarray) -> np.ndarray:
    return fit(torch.from_numpy(films).float()[:, None], ImageSpec(size=SIDE))[:, 0].numpy()


def _jpeg(film: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(film).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def _resized(film: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(film).resize((side, side), Image.Resampling.BILINEAR))


def _grey(film: np.ndarray) -> np.ndarray:
    return np.clip(film, 0, 255).astype(np.uint8)


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "compressed": lambda film: _jpeg(film, 50),
    "compressed much": lambda film: _jpeg(film, 25),
    "smaller": lambda film: _resized(_resized(film, 72), len(film)),
    "brighter and flatter": lambda film: _grey(film * 0.6 + 40),
    "another gamma": lambda film: _grey(255 * (film / 255) ** 0.6),
    "negative": lambda film: 255 - film,
}


@pytest.fixture(scope="module")
def films() -> np.ndarray:
    """Phantoms of 40 patients at most, some of them with two or three films."""
    drawn = draw_phantoms(Phantoms(kind="phantoms", images_per_class=16, size=96))
    return drawn.images[:, 0].numpy()


def test_equal_pixels_are_copies_of_the_first():
    blank = np.zeros((5, SIDE, SIDE), np.uint8)

    found = find_duplicates(blank, [b"a", b"b", b"a", b"a", b"b"])

    assert found.joined.tolist() == [0, 1, 0, 0, 1]
    assert (found.exact, found.near) == (3, 0)


def test_blank_images_are_like_nothing():
    greys = np.array([0, 90, 90, 255], np.uint8)
    blank = np.broadcast_to(greys[:, None, None], (4, SIDE, SIDE)).copy()

    assert find_duplicates(blank, _own(4)).joined.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", COPIES)
def test_a_film_stored_again_is_found(films, kind):
    again = np.stack([COPIES[kind](film) for film in films[:16]])

    found = find_duplicates(_thumbnails(np.concatenate([films, again])), _own(len(films) + 16))

    assert found.joined[len(films) :].tolist() == list(range(16))
    assert (found.exact, found.near) == (0, 16)


def test_other_films_are_no_copies_not_even_of_the_same_patient(films):
    found = find_duplicates(_thumbnails(films), _own(len(films)))

    assert found.joined.tolist() == list(range(len(films)))
    assert (found.exact, found.near) == (0, 0)


def test_joins_chain_over_equal_and_near_copies(films):
    packed = _jpeg(films[1], 50)
    thumbnails = _thumbnails(np.stack([films[0], films[1], packed, packed, films[2]]))

    found = find_duplicates(thumbnails, [b"0", b"1", b"2", b"2", b"4"])

    assert found.joined.tolist() == [0, 1, 1, 1, 4]
    assert (found.exact, found.near) == (1, 1)


def test_films_that_are_alike_through_a_third_are_one():
    rng = np.random.default_rng(0)
    between = rng.integers(60, 196, (SIDE, SIDE)).astype(float)
    one, other = (_grey(between + rng.normal(0, 15, (SIDE, SIDE))) for _ in range(2))

    apart = find_duplicates(np.stack([one, other]), _own(2))
    together = find_duplicates(np.stack([one, other, _grey(between)]), _own(3))

    assert apart.joined.tolist() == [0, 1]
    assert together.joined.tolist() == [0, 0, 0]
    assert together.near == 2


@given(seed=st.integers(0, 2**31), n=st.integers(1, 12))
def test_the_order_of_the_images_changes_names_alone(seed, n):
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 5, n)
    noise = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE), dtype=np.uint8)
    thumbnails = _grey(noise[kinds] + rng.normal(0, 3, (n, SIDE, SIDE)))

    found = find_duplicates(thumbnails, _own(n))

    assert found.near == n - len(set(kinds))
    assert found.joined.tolist() == [kinds.tolist().index(kind) for kind in kinds]


def test_blocks_do_not_matter(films, monkeypatch):
    films = np.concatenate([films, films[::-5]])
    whole = find_duplicates(_thumbnails(films), _own(len(films)))

    monkeypatch.setattr(duplicates, "BLOCK", 7)
    parts = find_duplicates(_thumbnails(films), _own(len(films)))

    assert parts.joined.tolist() == whole.joined.tolist()
    assert whole.near == 13


def test_a_sketch_strays_from_the_likeness_as_little_as_said():
    # pairs of vectors with cosine 0.9, through the projection of `_sketches`
    rng = np.random.default_rng(1)
    plan = rng.standard_normal((SIDE * SIDE, duplicates.SKETCH))
    one, other = rng.standard_normal((2, 400, SIDE * SIDE))
    other = 0.9 * one + np.sqrt(1 - 0.9**2) * other
    a, b = one @ plan, other @ plan

    cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)

    # (1 - 0.81) / sqrt(128) = 0.0168, and the draw itself adds a little
    assert cosines.mean() == pytest.approx(0.9, abs=0.005)
    assert cosines.std() == pytest.approx(0.0168, rel=0.25)
    assert pytest.approx(LIKENESS - 4 * 0.0168, abs=0.005) == SKETCH_LIKENESS


def test_progress_reaches_the_number_of_images(films):
    steps: list[Step] = []

    find_duplicates(_thumbnails(films), _own(len(films)), steps.append)

    assert (steps[-1].stage, steps[-1].done) == ("looking for duplicates", len(films))
    assert steps[-1].total == len(films)


def test_nothing_has_no_copies():
    found = find_duplicates(np.empty((0, SIDE, SIDE), np.uint8), [])

    assert (len(found.joined), found.exact, found.near) == (0, 0, 0)


@pytest.fixture(scope="module")
def radiographs(real_data: Path) -> np.ndarray:
    source = ImageNpz(kind="npz", path=real_data / "covid_cxr/cxr4_small.npz")
    return load_images(source, ImageSpec(size=112)).images[:, 0].numpy()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("archive", "copies"), [("radiography", 22), ("kermany", 0), ("external_sites", 0)]
)
def test_no_two_real_films_of_different_groups_are_taken_for_copies(real_data, archive, copies):
    # the archives were searched for duplicates by another method, and what is left has a group
    source = ImageNpz(kind="npz", path=real_data / f"covid_cxr/cxr4_{archive}.npz")
    images = load_images(source, ImageSpec(size=112))

    found = find_duplicates(_thumbnails(images.images[:, 0].numpy()), _own(len(images)))

    joined = [(row, first) for row, first in enumerate(found.joined.tolist()) if row != first]
    assert len(joined) == copies
    assert all(images.groups[row] == images.groups[first] for row, first in joined)


@pytest.mark.parametrize("kind", COPIES)
def test_real_films_stored_again_are_found(radiographs, kind):
    films = radiographs[::30]
    again = np.stack([COPIES[kind](film) for film in films])

    found = find_duplicates(_thumbnails(np.concatenate([films, again])), _own(2 * len(films)))

    hits = found.joined[len(films) :] == found.joined[: len(films)]
    assert hits.mean() >= 0.99
