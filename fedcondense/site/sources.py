"""The handle on patients that a method gets under each mode of privacy.

Whatever is granted here was charged before. `distill` does not know of differential privacy, and
`privacy` does not know of methods: this is where both meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from fedcondense.config.privacy import DpEmbed, DpSgd, FormalPrivacy, Unit
from fedcondense.config.site import SiteConfig
from fedcondense.config.study import Study
from fedcondense.data.dataset import LabeledImages
from fedcondense.distill.source import PlainSource, Source, device_of
from fedcondense.distill.trajectories import Course, Expert, ExpertStore, Shelf
from fedcondense.errors import DataError, InternalError, TooFewImages
from fedcondense.learning.networks import Network
from fedcondense.learning.randomness import Seed
from fedcondense.learning.refinement import FIRST_ROUND, Refinement
from fedcondense.privacy.accounting import Mechanism
from fedcondense.privacy.class_counts import noised_class_counts
from fedcondense.privacy.dp_embed import (
    ClassEmbeddings,
    DpEmbedSource,
    Embedder,
    release_class_embeddings,
)
from fedcondense.privacy.dp_sgd import DpSgdSource, Training, train_private_experts
from fedcondense.privacy.units import UnitImages
from fedcondense.progress import Watch, silent
from fedcondense.site.plan import declared_units


@dataclass(frozen=True)
class Basis:
    """The mechanisms that were charged, and what the round begins with.

    `kept` are the classes where an earlier set of these images decides, as for shadows; else they
    follow from noised counts.
    """

    charged: Sequence[Mechanism]
    refinement: Refinement = FIRST_ROUND
    kept: tuple[int, ...] | None = None

    @property
    def begin(self) -> Network | None:
        """The network that all experts begin as."""
        return next(iter(self.refinement.networks), None)


@dataclass(frozen=True)
class Grant:
    """What a method may use, and how many accesses to patients it took.

    Under differential privacy each reading is one. Without it the grant as a whole is: what was
    drawn from it, and how often, says nothing more of a method that sees everything.

    `experts` are there where the mode alone may train them.
    """

    source: Source
    experts: ExpertStore | None
    accesses: Callable[[], int]


def open_source(
    site: SiteConfig,
    study: Study,
    train: LabeledImages,
    basis: Basis,
    seed: Seed,
    *,
    watch: Watch = silent,
) -> Grant:
    """The handle that the study's mode grants, for the mechanisms that were charged.

    Raises:
        DataError: the unit is the patient, and an image names none.
        TooFewImages: by noised counts, no class is large enough.
    """
    if isinstance(study.privacy, DpEmbed):
        return _embeddings(site, study, train, basis, watch)
    if isinstance(study.privacy, DpSgd):
        return _private_experts(site, study, train, basis, seed, watch)
    source = PlainSource(
        train.images,
        train.labels,
        study.image,
        device=site.device,
        refinement=basis.refinement,
    )
    return Grant(source, None, lambda: 1)


def _embeddings(
    site: SiteConfig,
    study: Study,
    train: LabeledImages,
    basis: Basis,
    watch: Watch,
) -> Grant:
    units, device = _units(train, _formal(study)), device_of(site.device)
    embeddings = release_class_embeddings(
        units,
        study,
        basis.charged[0],
        least=_least(site, study) if basis.kept is None else 1,
        by=Embedder(device, basis.refinement.networks),
        watch=watch,
    )
    if basis.kept is not None:
        embeddings = _of_classes(embeddings, basis.kept)
    source = DpEmbedSource(embeddings, units.readings, device, basis.refinement)
    return Grant(source, None, lambda: source.accesses)


def _of_classes(embeddings: ClassEmbeddings, labels: tuple[int, ...]) -> ClassEmbeddings:
    if lost := set(labels) - set(embeddings.labels):
        raise TooFewImages(
            f"{len(lost)} classes of the set are lost in the noise on a part of the images",
            hint="this site cannot take part, or may raise release.min_patients_per_class",
        )
    return replace(embeddings, labels=labels)


def _private_experts(
    site: SiteConfig,
    study: Study,
    train: LabeledImages,
    basis: Basis,
    seed: Seed,
    watch: Watch,
) -> Grant:
    privacy = _formal(study)
    units, declared = _units(train, privacy), declared_units(site, privacy)
    kept = basis.kept
    if kept is None:
        kept = noised_class_counts(units, len(study.classes)).kept(_least(site, study))
    _demand_a_class(kept)
    training = Training(basis.charged[1], declared, kept, device_of(site.device), basis.begin)
    store = _Shelf()
    train_private_experts(units, study, store, training, seed=seed, watch=watch)
    source = DpSgdSource(training, units.readings, basis.refinement)
    return Grant(source, store.shelf, lambda: source.accesses)


class _Shelf:
    """Experts of one charged row, in memory: those of another row must never be taken for them."""

    def __init__(self) -> None:
        self.shelf = Shelf()

    def has(self, number: int) -> bool:
        return self.shelf.has(number)

    def keep(self, number: int, weights: Float[Tensor, "snapshots p"]) -> None:
        self.shelf.keep(number, Expert(weights, Course.unrecorded()))


def _formal(study: Study) -> FormalPrivacy:
    if not isinstance(study.privacy, FormalPrivacy):
        raise InternalError("a unit was asked of mode none", hint="report this error")
    return study.privacy


def _units(train: LabeledImages, privacy: FormalPrivacy) -> UnitImages:
    if privacy.unit is Unit.IMAGE:
        return UnitImages.by_image(train.images, train.labels)
    if train.patients is None:
        raise DataError(
            "unit patient: the images name no patient",
            hint='give every image its patient, or agree on privacy.unit = "image"',
        )
    return UnitImages.by_patient(train.images, train.labels, train.patients)


def _least(site: SiteConfig, study: Study) -> int:
    return max(study.images_per_class, site.release.min_patients_per_class)


def _demand_a_class(kept: Sequence[int]) -> None:
    if not kept:
        raise TooFewImages(
            "by noised counts, no class at this site is large enough",
            hint="this site cannot take part, or may lower release.min_patients_per_class",
        )
