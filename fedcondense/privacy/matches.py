"""The training image next to each synthetic picture, for the eyes of the site alone.

What is here shows patients. It is for the page of the local record; nothing of it is part of an
audit's result, of a payload, or of the copy of the record that leaves. PSNR and SSIM are what
papers print: they describe a pair, and certify nothing. An image 17 dB from its patient still
names that patient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from fedcondense.config.study import ImageSpec, Study
from fedcondense.data.dataset import LabeledImages
from fedcondense.exchange.contribution import SyntheticArrays
from fedcondense.learning.pixels import normalise
from fedcondense.privacy.likeness import RIDGES, Contrast, Kind, Space, View, features, views

WINDOW, WINDOW_SD = 11, 1.5  # pixels; Wang et al. 2004, sec. III-C
LUMINANCE, CONTRAST = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # C1 and C2 there
LARGEST_RATIO = 99.0  # dB that stand for equal pictures


@dataclass(frozen=True)
class Match:
    """A synthetic picture beside the training image of its class that it is most like.

    Attributes:
        stored: row of the stored image in the set.
        part: which tile of it; 0 also where the picture is the whole image.
        kind: whole image or tile.
        label: its class, by the study's numbering.
        row: row of the training image.
        likeness: cosine of what is a patient's own, in [-1, 1]; what matches are found and
            sorted by.
        correlation: normalised cross-correlation of the pixels, in [-1, 1].
        ratio: peak signal-to-noise ratio in dB.
        similarity: SSIM, in [-1, 1].
        synthetic: the synthetic picture.
        training: the patient's image; beside a tile, as coarse as the tile.
    """

    stored: int
    part: int
    kind: Kind
    label: int
    row: int
    likeness: float
    correlation: float
    ratio: float
    similarity: float
    synthetic: UInt8[np.ndarray, "c h w"]
    training: UInt8[np.ndarray, "c h w"]


def closest_pictures(
    arrays: SyntheticArrays, *, study: Study, train: LabeledImages
) -> tuple[Match, ...]:
    """A match for every stored image, and every tile of a partitioned one; the likest first."""
    kinds = (Kind.WHOLE,) if study.distill.partition == 1 else (Kind.WHOLE, Kind.TILES)
    shown = views(
        torch.from_numpy(arrays.images),
        torch.from_numpy(arrays.labels.astype(np.int64)),
        normalise(train.images, study.image),
        partition=study.distill.partition,
    )
    matches = [
        match
        for view in shown
        if view.kind in kinds
        for match in _matches(view, train.labels, len(arrays.images), study)
    ]
    return tuple(sorted(matches, key=lambda match: -match.likeness))


def _matches(view: View, labels: Int64[Tensor, " n"], stored: int, study: Study) -> list[Match]:
    likeness, rows = _nearest(view, labels, len(study.classes))
    synthetic = to_pixels(view.synthetic, study.image)
    training = to_pixels(view.real[rows], study.image)
    measures = zip(
        correlation(synthetic, training),
        signal_to_noise(synthetic, training),
        structural_similarity(synthetic, training),
        strict=True,
    )
    return [
        Match(
            stored=number % stored,
            part=number // stored,
            kind=view.kind,
            label=int(view.labels[number]),
            row=int(rows[number]),
            likeness=float(likeness[number]),
            correlation=float(ncc),
            ratio=float(psnr),
            similarity=float(ssim),
            synthetic=synthetic[number].numpy(),
            training=training[number].numpy(),
        )
        for number, (ncc, psnr, ssim) in enumerate(measures)
    ]


def _nearest(
    view: View, labels: Int64[Tensor, " n"], classes: int
) -> tuple[Float[Tensor, " m"], Int64[Tensor, " m"]]:
    """The highest cosine of each view to a training image of its class, and that one's row."""
    real = features(view.real, Space.PIXELS)
    contrast = Contrast.of(real, labels, classes=classes, ridge=RIDGES[Space.PIXELS])
    ours = contrast.directions(features(view.synthetic, Space.PIXELS), view.labels)
    cosines = ours @ contrast.directions(real, labels).T
    other = view.labels.unsqueeze(1) != labels
    best = cosines.masked_fill(other, -torch.inf).max(dim=1)
    return best.values, best.indices


def to_pixels(images: Float[Tensor, "n c h w"], spec: ImageSpec) -> UInt8[Tensor, "n c h w"]:
    """Normalised units as grey values; what lies outside goes to the nearest end."""
    return images.mul(spec.std).add(spec.mean).mul(255).round().clamp(0, 255).byte()


def correlation(
    ours: UInt8[Tensor, "n c h w"], theirs: UInt8[Tensor, "n c h w"]
) -> Float[Tensor, " n"]:
    """Normalised cross-correlation of each pair, in [-1, 1]; 0 where one has no contrast."""
    one, other = (_centred(images) for images in (ours, theirs))
    norms = one.norm(dim=1) * other.norm(dim=1)
    return (one * other).sum(dim=1) / norms.clamp(min=1e-9)


def signal_to_noise(
    ours: UInt8[Tensor, "n c h w"], theirs: UInt8[Tensor, "n c h w"]
) -> Float[Tensor, " n"]:
    """Peak signal-to-noise ratio of each pair in dB: 10 log10 (255² / mean squared difference)."""
    error = (ours.double() - theirs.double()).square().flatten(1).mean(dim=1)
    ratio = 10 * torch.log10(255**2 / error.clamp(min=1e-12))
    return ratio.clamp(max=LARGEST_RATIO)


def structural_similarity(
    ours: UInt8[Tensor, "n c h w"], theirs: UInt8[Tensor, "n c h w"]
) -> Float[Tensor, " n"]:
    """SSIM of each pair, the mean over windows and channels (Wang et al. 2004, eq. 13)."""
    one, other = ours.double(), theirs.double()
    mean_one, mean_other = _window_mean(one), _window_mean(other)
    variance_one = _window_mean(one.square()) - mean_one.square()
    variance_other = _window_mean(other.square()) - mean_other.square()
    together = _window_mean(one * other) - mean_one * mean_other
    luminance = (2 * mean_one * mean_other + LUMINANCE) / (
        mean_one.square() + mean_other.square() + LUMINANCE
    )
    structure = (2 * together + CONTRAST) / (variance_one + variance_other + CONTRAST)
    return (luminance * structure).flatten(1).mean(dim=1)


def _centred(images: Tensor) -> Tensor:
    flat = images.double().flatten(1)
    return flat - flat.mean(dim=1, keepdim=True)


def _window_mean(images: Tensor) -> Tensor:
    """Gaussian-weighted means of all whole windows."""
    offsets = torch.arange(WINDOW, dtype=images.dtype) - WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * WINDOW_SD**2))
    weights = (weights / weights.sum()).view(1, 1, 1, -1)
    planes = images.flatten(0, 1).unsqueeze(1)
    means = F.conv2d(F.conv2d(planes, weights), weights.transpose(2, 3))
    return means.view(*images.shape[:2], *means.shape[2:])
