"""Mode `dp-embed`: class sums of embeddings, noised once when they are made.

The Gaussian mechanism on one sum over all units, at full batch: one row of the ledger. Whatever is
done with the noised sums afterwards costs nothing more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor

from fedcondense.config.privacy import DpEmbed
from fedcondense.config.study import ImageSpec, Study
from fedcondense.errors import InternalError, TooFewImages
from fedcondense.learning.feature_maps import AT_ONCE, PublicMap, public_maps, unit_embeddings
from fedcondense.learning.networks import Network
from fedcondense.learning.pixels import normalise
from fedcondense.learning.randomness import secret_normal
from fedcondense.learning.refinement import FIRST_ROUND, Refinement
from fedcondense.privacy.accounting import Mechanism
from fedcondense.privacy.private_source import PrivateSource
from fedcondense.privacy.units import Records, UnitImages
from fedcondense.progress import Step, Watch, silent

MECHANISM = "class-embeddings"
STAGE = "embedding"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class ClassEmbeddings:
    """Noised sums over units, the only form in which embeddings of patients are kept.

    Attributes:
        sums: for every map and class of the study the sum of unit vectors, and in the last place
            `weight` times the number of units; noise is in all of it.
        weight: w, the coordinate in which counts ride along.
        labels: classes whose noised count is large enough, ascending.
        left_out: names of the study's other classes.
        maps: what images were embedded by, in the order of `sums`.
    """

    sums: Float64[Tensor, "maps k d_and_count"]
    weight: float
    labels: tuple[int, ...]
    left_out: tuple[str, ...]
    maps: tuple[PublicMap, ...]

    @property
    def counts(self) -> Float64[Tensor, " k"]:
        """Noised units of each class of the study: mean over maps of the last coordinate / w."""
        return noised_counts(self.sums, self.weight)

    @property
    def targets(self) -> Float64[Tensor, "maps classes d"]:
        """The noised mean of each of `labels` in each map: sum / noised count.

        Drawn back to length 1 where noise made it longer: a mean of unit vectors is not, so that
        this brings it nearer to the truth, whatever that is.
        """
        rows = list(self.labels)
        return _at_most_one(self.sums[:, rows, :-1] / self.counts[rows].view(1, -1, 1))


@dataclass(frozen=True)
class Embedder:
    """Where images are embedded, and by which networks in place of random ones."""

    device: torch.device = CPU
    networks: Sequence[Network] = ()


def sensitivity(maps: int, weight: float) -> float:
    """How far one unit more or less moves the sums of all maps together: sqrt(R (1 + w^2)).

    A unit adds the mean over its images of onehot(class) x [u, w], with u of length at most 1: laid
    out over all classes its norm is at most sqrt(1 + w^2) in each map, in however many classes the
    unit has images.
    """
    return math.sqrt(maps * (1 + weight**2))


def release_class_embeddings(
    units: UnitImages,
    study: Study,
    charged: Mechanism,
    *,
    least: int,
    by: Embedder | None = None,
    watch: Watch = silent,
) -> ClassEmbeddings:
    """Embed every unit once and add the noise; call it once for each row of the ledger.

    `charged` is that row; its sigma is the noise's standard deviation over the sensitivity. The
    sums without noise and the noise itself end with this call. A class of the study whose noised
    count is below `least` is left out. In a later round the maps have the networks of `by`, which
    were trained on sets that are released already: the bound on a unit holds for any map.

    Raises:
        TooFewImages: no class is left.
        InternalError: what was charged is not what the study asks for.
    """
    privacy, sigma = _agreed(study, units, charged)
    by = by or Embedder()
    maps = public_maps(
        study, privacy.maps, views=privacy.views, device=by.device, networks=by.networks
    )
    records = units.read(MECHANISM)
    sums = _sums(records, maps, study, watch)
    deviation = sigma * sensitivity(len(maps), privacy.count_weight)
    sums += deviation * secret_normal(*sums.shape)  # in place: the clean sums are gone
    labels = _large(noised_counts(sums, privacy.count_weight), least)
    if not labels:
        raise TooFewImages(
            f"no class has {least} {units.unit}s or more at this site, by noised counts",
            hint="this site cannot take part, or may lower release.min_patients_per_class",
        )
    left_out = tuple(name for label, name in enumerate(study.classes) if label not in labels)
    return ClassEmbeddings(sums, privacy.count_weight, labels, left_out, maps)


def noised_counts(
    sums: Float64[Tensor, "maps k d_and_count"], weight: float
) -> Float64[Tensor, " k"]:
    """Units of each class; noise of standard deviation sigma sqrt(1 + w^2) / w is in them."""
    return sums[:, :, -1].mean(dim=0) / weight


class DpEmbedSource(PrivateSource):
    """What a method has of patients under `dp-embed`: noised class embeddings, and nothing else."""

    mode = "dp-embed"

    def __init__(
        self,
        embeddings: ClassEmbeddings,
        readings: Sequence[str],
        device: torch.device = CPU,
        refinement: Refinement = FIRST_ROUND,
    ) -> None:
        super().__init__(embeddings.labels, readings, device, refinement)
        self._embeddings = embeddings

    def class_embeddings(self) -> ClassEmbeddings:
        """The same noised numbers at every call: asking again costs nothing."""
        return self._embeddings


def _sums(
    records: Records, maps: Sequence[PublicMap], study: Study, watch: Watch
) -> Float64[Tensor, "maps k d_and_count"]:
    """The sums without noise: what `release_class_embeddings` alone may hold."""
    found = []
    for number, public_map in enumerate(maps, start=1):
        found.append(sum(_parts(records, public_map, study), torch.zeros((), dtype=torch.float64)))
        watch(Step(STAGE, number, len(maps)))
    return torch.stack(found)


def _parts(
    records: Records, public_map: PublicMap, study: Study
) -> Iterator[Float64[Tensor, "k d_and_count"]]:
    """Sums of one map over some images after others, which bounds the memory."""
    classes, weight = len(study.classes), _private(study).count_weight
    columns = (records.images, records.labels, _shares(records))
    for images, labels, shares in zip(*(column.split(AT_ONCE) for column in columns), strict=True):
        vectors = _vectors(public_map, images, study.image)
        yield _class_sums(vectors, labels, shares, classes, weight)


def _class_sums(
    vectors: Float[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    shares: Float64[Tensor, " n"],
    classes: int,
    weight: float,
) -> Float64[Tensor, "k d_and_count"]:
    """Sum over images of share x onehot(class) x [vector, w]; shares of one unit sum to 1.

    The bound on a unit is enforced here, whatever the map answered.
    """
    rows = F.pad(_at_most_one(vectors), (0, 1), value=weight) * shares.unsqueeze(1)
    sums = torch.zeros(classes, rows.shape[1], dtype=torch.float64)
    return sums.index_add_(0, labels, rows)


def _at_most_one(vectors: Float[Tensor, "*n d"]) -> Float64[Tensor, "*n d"]:
    """Vectors no longer than 1; one that is not finite is zero, since no clip holds NaN."""
    exact = vectors.double()
    exact = torch.where(exact.isfinite().all(dim=-1, keepdim=True), exact, 0.0)
    return exact / torch.linalg.vector_norm(exact, dim=-1, keepdim=True).clamp(min=1)


def _shares(records: Records) -> Float64[Tensor, " n"]:
    """1 / the number of images that an image's unit has."""
    images = torch.bincount(records.owners, minlength=records.units).double()
    return 1 / images[records.owners]


@torch.no_grad()
def _vectors(
    public_map: PublicMap, images: UInt8[Tensor, "n c h w"], spec: ImageSpec
) -> Float[Tensor, "n d"]:
    """The unit vector of each of at most `AT_ONCE` images, on the CPU.

    Every batch has the same size: a smaller one would be computed by another kernel, and one
    patient less would change the last bits of another's vector.
    """
    full = F.pad(images, (0, 0, 0, 0, 0, 0, 0, AT_ONCE - len(images)))
    pixels = normalise(full.to(public_map.centre.device), spec)
    return unit_embeddings(public_map, pixels)[: len(images)].cpu()


def _large(counts: Float64[Tensor, " k"], least: int) -> tuple[int, ...]:
    """Classes with at least `least` units and one at the very least, ascending."""
    return tuple((counts >= max(least, 1)).nonzero().flatten().tolist())


def _agreed(study: Study, units: UnitImages, charged: Mechanism) -> tuple[DpEmbed, float]:
    """What the study asks for and the sigma, if that is what was charged.

    Raises:
        InternalError: it is not.
    """
    privacy = _private(study)
    if (charged.name, charged.q, charged.steps) != (MECHANISM, 1.0, 1) or charged.sigma is None:
        raise InternalError("class embeddings are not what was charged", hint="report this error")
    if privacy.unit is not units.unit:
        raise InternalError("class embeddings of another unit of privacy", hint="report this error")
    return privacy, charged.sigma


def _private(study: Study) -> DpEmbed:
    if not isinstance(study.privacy, DpEmbed):
        raise InternalError(
            f"class embeddings of privacy.mode {study.privacy.mode}", hint="report this error"
        )
    return study.privacy
