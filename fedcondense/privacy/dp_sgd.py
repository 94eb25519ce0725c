"""Mode `dp-sgd`: experts whose every snapshot is covered by one row of the ledger.

DP-SGD (Abadi et al. 2016) with Poisson sampling of units. Start, number of steps and sampling rate
depend on declared numbers alone; what is done with the snapshots afterwards costs nothing more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from fedcondense.config.experts import Experts
from fedcondense.config.privacy import DpSgd, Unit
from fedcondense.config.study import Study
from fedcondense.config.trajectory import Mtt
from fedcondense.errors import DivergedError, InternalError, SettingsError
from fedcondense.learning.augment import Augmentation, augment
from fedcondense.learning.networks import Network, build_network
from fedcondense.learning.pixels import normalise
from fedcondense.learning.randomness import Seed, secret_generator
from fedcondense.learning.refinement import FIRST_ROUND, Refinement
from fedcondense.privacy.accounting import Mechanism
from fedcondense.privacy.private_source import PrivateSource
from fedcondense.privacy.units import Records, Sample, UnitImages, split
from fedcondense.progress import Step, Watch, silent

MECHANISM = "experts"
STAGE = "training experts"
CPU = torch.device("cpu")
AT_ONCE = 128  # images whose gradients are held one by one


class PlannedSteps(NamedTuple):
    """What one row of the ledger covers: sampling rate, and steps of all experts together."""

    q: float
    steps: int


@dataclass(frozen=True)
class Training:
    """What a row of the ledger was charged for, and on what.

    Attributes:
        charged: the row; its sigma is the standard deviation of the noise over the clip.
        declared: units that the site makes public.
        labels: the classes that remain, by noised counts.
        device: where networks are trained.
        begin: the network that all experts begin as, trained on released sets alone; None where
            each begins afresh.
    """

    charged: Mechanism
    declared: int
    labels: tuple[int, ...]
    device: torch.device = CPU
    begin: Network | None = None


@runtime_checkable
class SnapshotStore(Protocol):
    """Where experts are kept, by number from 0."""

    def has(self, number: int) -> bool:
        """Whether that expert is trained, by this same row of the ledger."""

    def keep(self, number: int, weights: Float[Tensor, "snapshots p"]) -> None:
        """Keep flat weights, in the order of `named_parameters`: the start, then each epoch's."""


def planned_steps(experts: Experts, declared: int) -> PlannedSteps:
    """What training costs, from public numbers alone.

    A unit is sampled with probability batch / `declared`, so that the row is exact however many
    units there are in truth; an epoch is as many steps as it takes to see each once on average.

    Raises:
        SettingsError: the settings need what DP-SGD has not: batches of equally many per class.
    """
    if experts.class_balanced:
        raise SettingsError(
            "distill.experts.class_balanced: dp-sgd samples every unit with one probability",
            hint="set it to false",
        )
    q = min(1.0, experts.batch / declared)
    return PlannedSteps(q, experts.count * experts.epochs * _steps_per_epoch(experts, declared))


def train_private_experts(
    units: UnitImages,
    study: Study,
    store: SnapshotStore,
    training: Training,
    *,
    seed: Seed,
    watch: Watch = silent,
) -> None:
    """Train the experts of `study.distill.experts`; call it once for each row of the ledger.

    `seed` decides the fresh networks, as for experts without differential privacy; noise, samples
    and augmentation are secret and never come again.

    Raises:
        DivergedError: an expert is no longer finite.
        SettingsError: the network or its settings do not go with DP-SGD.
        InternalError: what was charged is not what the study asks for.
    """
    experts, charged = study.settings(Mtt).experts, training.charged
    planned = planned_steps(experts, training.declared)
    if charged.sigma is None or (charged.q, charged.steps) != planned:
        raise InternalError("experts are not what was charged", hint="report this error")
    if _private(study).unit is not units.unit:
        raise InternalError("experts of another unit of privacy", hint="report this error")
    records = units.read(MECHANISM, labels=training.labels)
    secret = secret_generator()
    for number in range(experts.count):
        if not store.has(number):
            start = seed.child("experts").stream(f"expert-{number}")
            learner = PrivateLearner(records, study, training, start=start, secret=secret)
            store.keep(number, learner.run(number, watch))


class PrivateLearner:
    """One expert in training; `train_private_experts` is the way to train it."""

    def __init__(
        self,
        records: Records,
        study: Study,
        training: Training,
        *,
        start: torch.Generator,
        secret: torch.Generator,
    ) -> None:
        from fedcondense.privacy.unit_gradients import NoisyDescent

        self.records, self.image, self.training = records, study.image, training
        self.experts, self.privacy = study.settings(Mtt).experts, _private(study)
        self.secret = secret
        self.q = planned_steps(self.experts, training.declared).q
        network = build_network(
            study.network, study.image, classes=len(study.classes), generator=start
        )
        if training.begin is not None:
            network.load_state_dict(training.begin.state_dict())
        self.descent = NoisyDescent(
            network.to(training.device),
            partial(
                torch.optim.SGD,
                lr=self.experts.rate,
                momentum=self.experts.momentum,
                weight_decay=self.experts.weight_decay,
            ),
            clip=self.privacy.clip,
            sigma=training.charged.sigma or 0.0,
            expected=self.q * training.declared,
        )
        self.average = self._weights()

    def run(self, number: int, watch: Watch = silent) -> Float[Tensor, "snapshots p"]:
        """Flat weights, or the moving average of iterates: before the first epoch, after each.

        No loss and no accuracy is computed: they would be statistics of patients without noise.
        """
        total = self.experts.epochs * self.experts.count
        snapshots = [self.average.cpu()]
        for epoch in range(1, self.experts.epochs + 1):
            for _ in range(_steps_per_epoch(self.experts, self.training.declared)):
                self.step()
            if not bool(self.average.isfinite().all()):
                raise DivergedError(
                    f"expert {number} is not finite after epoch {epoch}",
                    hint="lower distill.experts.rate",
                )
            snapshots.append(self.average.cpu())
            figures = {"expert": float(number + 1), "epoch": float(epoch)}
            watch(Step(STAGE, number * self.experts.epochs + epoch, total, figures))
        self.descent.release()
        return torch.stack(snapshots)

    def step(self) -> None:
        """One charged step, also where the sample is empty."""
        most = self.privacy.images_per_patient if self.privacy.unit is Unit.PATIENT else 1
        sample = self.records.poisson(self.q, most, self.secret)
        self.descent.step(split(sample, AT_ONCE), self._load)
        decay = self.privacy.averaging
        self.average = decay * self.average + (1 - decay) * self._weights()

    def _load(self, part: Sample) -> tuple[Float[Tensor, "n c h w"], Int64[Tensor, " n"]]:
        device = self.training.device
        images = normalise(self.records.images[part.rows].to(device), self.image)
        families = tuple(str(family) for family in self.experts.families)
        labels = self.records.labels[part.rows].to(device)
        return augment_each(images, families, self.secret), labels

    def _weights(self) -> Float[Tensor, " p"]:
        return torch.cat([p.detach().flatten() for p in self.descent.parameters])


def augment_each(
    images: Float[Tensor, "n c h w"], families: tuple[str, ...], generator: torch.Generator
) -> Float[Tensor, "n c h w"]:
    """Every image by a family and parameters of its own.

    One family for a whole batch would tie the images of a batch together.
    """
    if not families:
        return images
    which = torch.randint(len(families), (len(images),), generator=generator)
    uniform = torch.rand(len(images), 3, generator=generator)
    augmented = images.clone()
    for number, family in enumerate(families):
        rows = (which == number).nonzero()[:, 0]
        if len(rows):
            on_device = rows.to(images.device)
            drawn = Augmentation(family, uniform[rows])
            augmented[on_device] = augment(images[on_device], drawn)
    return augmented


class DpSgdSource(PrivateSource):
    """What a method has of patients once experts are trained: the names of classes."""

    mode = "dp-sgd"

    def __init__(
        self, training: Training, readings: Sequence[str], refinement: Refinement = FIRST_ROUND
    ) -> None:
        super().__init__(training.labels, readings, training.device, refinement)


def _private(study: Study) -> DpSgd:
    if not isinstance(study.privacy, DpSgd):
        raise InternalError(
            f"experts of privacy.mode {study.privacy.mode}", hint="report this error"
        )
    return study.privacy


def _steps_per_epoch(experts: Experts, declared: int) -> int:
    """1 / q, rounded up, in whole numbers: 1 / (1 / 49) is above 49."""
    return -(-declared // min(experts.batch, declared))
