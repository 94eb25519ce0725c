"""Images of one site that are the same film: equal pixels, or the same film stored again.

A hospital's archive holds a film as it was taken, re-sent, re-compressed, windowed anew. Were one
copy learned from and the other held out, every audit would be fooled. So copies are joined into one
group. Nothing is removed: whether an image is looked at must not depend on another image.

A group of copies is for splits alone, never a unit of privacy. Which images look alike is a
statement about pairs: one patient more can join two groups of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from fedcondense.progress import Step, Watch, silent

SIDE = 64  # pixels of a thumbnail
BLUR = 4.0  # pixels: standard deviation of the neighbourhood that detail is held against
GROUND = 6.0  # grey values: detail fainter than this is rather noise
LIKENESS = 0.9  # docs/ref-data.md says how far copies and other films are from it
SKETCH = 128  # numbers that stand for the detail of an image in the first search
SKETCH_LIKENESS = 0.83  # four standard deviations below LIKENESS, see `_sketches`
BLOCK = 256  # images compared with all others at once

Thumbnails = UInt8[np.ndarray, "n side side"]


@dataclass(frozen=True)
class Duplicates:
    """Which images are one film.

    Attributes:
        joined: for each image the first that is the same film, by row; itself where there is none.
        exact: images whose pixels all equal those of an earlier image.
        near: joins beyond these: the films that are left if each counts once are `len(joined) -
            exact - near`.
    """

    joined: Int64[np.ndarray, " n"] = field(repr=False)
    exact: int
    near: int


def find_duplicates(
    thumbnails: Thumbnails, digests: Sequence[bytes], watch: Watch = silent
) -> Duplicates:
    """Join images with equal `digests` of their pixels, and images whose detail is alike.

    `thumbnails` are grey, `SIDE` x `SIDE`. Detail is what `_detail` leaves; two images are near
    duplicates if the cosine between theirs is above `LIKENESS` in absolute value: a negative is a
    copy as well. Likeness is not transitive; joins are.

    All pairs are compared, but by `SKETCH` numbers an image: half a million pairs take a
    millisecond or two. Only pairs that are alike by these are compared in full.
    """
    first_with: dict[bytes, int] = {}
    joined = np.array([first_with.setdefault(d, row) for row, d in enumerate(digests)], np.int64)
    films = np.flatnonzero(joined == np.arange(len(joined)))
    film_of = _join_alike(thumbnails[films], watch)
    joined = films[film_of[np.searchsorted(films, joined)]]
    return Duplicates(
        joined=joined,
        exact=len(joined) - len(films),
        near=int((film_of != np.arange(len(films))).sum()),
    )


def _join_alike(thumbnails: Thumbnails, watch: Watch) -> Int64[np.ndarray, " n"]:
    """For each image the first of those that it is joined with."""
    film_of = np.arange(len(thumbnails))
    sketches = _sketches(thumbnails)
    for start in range(0, len(sketches), BLOCK):
        likeness = np.abs(sketches[start : start + BLOCK] @ sketches[start:].T)
        later = np.triu(likeness > SKETCH_LIKENESS, k=1)
        for row in np.flatnonzero(later.any(axis=1)).tolist():
            candidates = start + np.flatnonzero(later[row])
            _join_row(start + row, candidates, thumbnails, film_of)
        watch(Step("looking for duplicates", min(start + BLOCK, len(sketches)), len(sketches)))
    return film_of


def _join_row(
    row: int,
    candidates: Int64[np.ndarray, " c"],
    thumbnails: Thumbnails,
    film_of: Int64[np.ndarray, " n"],
) -> None:
    """Compare one image in full with those `candidates` that are not joined with it yet."""
    candidates = candidates[film_of[candidates] != film_of[row]]
    if len(candidates) == 0:
        return
    own = _detail(thumbnails[row : row + 1])[0]
    for part in np.array_split(candidates, -(-len(candidates) // BLOCK)):
        alike = part[np.abs(_detail(thumbnails[part]) @ own) > LIKENESS]
        for first, other in ((film_of[row], film_of[found]) for found in alike):
            film_of[film_of == max(first, other)] = min(first, other)


def _detail(thumbnails: Thumbnails) -> Float32[np.ndarray, "n values"]:
    """Detail in units of its neighbourhood's, as vectors of length 1 (0 for a blank image).

    What exposure, windowing and compression change, the level and contrast of regions, is divided
    out; what is left is the fine structure by which a film is recognised.
    """
    grey = thumbnails.astype(np.float32)
    fine = grey - _blurred(grey)
    contrast = np.sqrt(np.maximum(_blurred(fine**2), 0))
    vectors = (fine / (contrast + GROUND)).reshape(len(grey), -1)
    vectors -= vectors.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 1e-3)


def _blurred(grey: Float32[np.ndarray, "n side side"]) -> Float32[np.ndarray, "n side side"]:
    """Gaussian blur; at an edge the weights inside are scaled up to 1."""
    places = np.arange(grey.shape[-1])
    weights = np.exp(-0.5 * ((places[:, None] - places) / BLUR) ** 2)
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return np.asarray(weights @ grey @ weights.T)


def _sketches(thumbnails: Thumbnails) -> Float32[np.ndarray, "n sketch"]:
    """Random projections of the detail, as vectors of length 1 (0 for a blank image).

    The cosine r of two images is met with a standard deviation of about (1 - r^2) / sqrt(SKETCH)
    (Li, Hastie and Church, KDD 2006, for normal projections): 0.017 at 0.9.
    """
    rng = np.random.default_rng(20061)  # any fixed number: which pairs are found is no chance
    plan = rng.standard_normal((SIDE * SIDE, SKETCH), dtype=np.float32)
    sketches = np.empty((len(thumbnails), SKETCH), np.float32)
    for start in range(0, len(thumbnails), BLOCK):
        sketches[start : start + BLOCK] = _detail(thumbnails[start : start + BLOCK]) @ plan
    lengths = np.linalg.norm(sketches, axis=1, keepdims=True)
    return np.divide(sketches, lengths, out=np.zeros_like(sketches), where=lengths > 0)
