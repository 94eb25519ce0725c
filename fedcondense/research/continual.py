"""Classes that come in stages, learned from a memory of synthetic images (GDumb).

Zhao et al. 2023, sec. 5.6 and Fig. 8; the protocol is that of Prabhu et al., ECCV 2020. Labels and
network outputs are the study's at every stage: condensing sees images of the new classes alone and
knows no more of classes to come than their number. A score chooses among the classes seen so far.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64

from fedcondense.config.scenario import Scenario
from fedcondense.config.study import Study
from fedcondense.data.dataset import LabeledImages
from fedcondense.distill.methods import distill
from fedcondense.distill.source import PlainSource
from fedcondense.errors import SettingsError, TooFewImages
from fedcondense.exchange.sealing import Opened
from fedcondense.files.environment import this_environment
from fedcondense.learning.evaluation import Candidate, Ingredient
from fedcondense.learning.metrics import accuracy, balanced_accuracy, confusion
from fedcondense.learning.randomness import Seed
from fedcondense.progress import Watch, silent
from fedcondense.research.continual_report import continual_report, write_continual_report
from fedcondense.research.continual_schema import ContinualReport, OrderScores, StageScores
from fedcondense.research.evaluation_cache import EvaluationCache
from fedcondense.research.repetition import processors
from fedcondense.research.run_root import RunRoot
from fedcondense.research.scenario_report import scored_images
from fedcondense.research.scenario_run import device_name, read_images
from fedcondense.server.aggregate import GlobalSet, aggregate
from fedcondense.server.conclude import bench_of, views_of
from fedcondense.site.checkpoint import FileCheckpoints, identity_of
from fedcondense.site.experts import ExpertFiles
from fedcondense.site.payload import payload_of
from fedcondense.site.state import RoundState, local_figures

Predictions = Float[np.ndarray, "m n k"]


@dataclass(frozen=True)
class Stage:
    """One stage of one order: the labels that are new in it, and all that were seen with them."""

    number: int  # from 1
    new: tuple[int, ...]
    seen: tuple[int, ...]


def evaluate_continual(scenario: Scenario, out: Path, *, watch: Watch = silent) -> ContinualReport:
    """Play the stages of every order in the directory `out` and write the report there.

    A run that was interrupted goes on: finished sets are not condensed again, finished networks
    not trained again.

    Raises:
        RunDirectoryError: `out` holds anything else.
        FedcondenseError: images or settings are at fault; what is finished is kept.
    """
    root = RunRoot(out)
    with root.claim(scenario):
        images = read_images(scenario, watch=watch)
        _check(scenario, images.train)
        study = scenario.study(images.train.classes, 1, scenario.seeds[0])
        test = images.tests[scenario.read]
        orders = _orders(root, scenario, study)
        for order in orders:
            order.condense(images.train, scenario.device, watch)
        played = _scored(root, scenario, orders, test, watch)
        report = continual_report(
            scenario,
            study,
            scored_images(scenario.read, test),
            this_environment(scenario.device, threads=torch.get_num_threads()),
            played,
        )
        write_continual_report(out, report)
        root.finish()
    return report


def class_orders(classes: int, orders: int, seed: Seed) -> list[tuple[int, ...]]:
    """Random orders of the labels; they depend on the public seed alone, not on the method."""
    return [
        tuple(torch.randperm(classes, generator=seed.stream(f"classes-{i}")).tolist())
        for i in range(1, orders + 1)
    ]


def cut_stages(order: Sequence[int], stages: int) -> tuple[Stage, ...]:
    """The order in `stages` parts as even as they go, the larger ones first."""
    parts = [tuple(part.tolist()) for part in np.array_split(np.array(order), stages)]
    seen = accumulate(parts)
    return tuple(
        Stage(i, new, old) for i, (new, old) in enumerate(zip(parts, seen, strict=True), 1)
    )


def accuracies(
    probabilities: Predictions, labels: Int64[np.ndarray, " n"], seen: Sequence[int]
) -> tuple[float, float]:
    """Accuracy and balanced accuracy on the images of the classes seen, means over networks.

    Classes to come are neither asked for nor an answer: their images and outputs are left out.
    """
    columns = np.sort(np.array(seen))
    rows = np.isin(labels, columns)
    among = np.searchsorted(columns, labels[rows])
    one = np.ones((1, len(among)))
    shown = probabilities[:, rows][:, :, columns]
    counts = np.concatenate([confusion(p, among, one) for p in shown])
    return float(accuracy(counts).mean()), float(balanced_accuracy(counts).mean())


def _check(scenario: Scenario, train: LabeledImages) -> None:
    assert scenario.continual is not None, "asked of a scenario with stages"
    counts = train.counts().tolist()
    if scenario.continual.stages > len(counts):
        raise SettingsError(
            f"continual.stages: {scenario.continual.stages} stages of {len(counts)} classes",
            hint="name at most as many stages as there are classes",
        )
    name, least = min(zip(train.classes, counts, strict=True), key=lambda pair: pair[1])
    if least < scenario.images_per_class:
        raise TooFewImages(
            f"{name} has {least} training images, {scenario.images_per_class} are to be stored",
            hint="lower images_per_class, or leave that class out of classes",
        )


def _orders(root: RunRoot, scenario: Scenario, study: Study) -> list[_Order]:
    assert scenario.continual is not None, "asked of a scenario with stages"
    seed = Seed(study.seed).child("continual")
    orders = class_orders(len(study.classes), scenario.continual.orders, seed)
    return [
        _Order(
            number=number,
            folder=root.path / f"order-{number}",
            study=study,
            seed=seed.child(f"order-{number}"),
            stages=cut_stages(order, scenario.continual.stages),
        )
        for number, order in enumerate(orders, start=1)
    ]


@dataclass(frozen=True)
class _Order:
    """One order of the classes: as if a site condensed, and had other classes in each round."""

    number: int  # from 1
    folder: Path
    study: Study
    seed: Seed
    stages: tuple[Stage, ...]

    def condense(self, train: LabeledImages, device: str, watch: Watch) -> None:
        """Condense the new classes of every stage; what is there already stays."""
        for stage in self.stages:
            if not self._state(stage).finished():
                where = f", order {self.number}, stage {stage.number} of {len(self.stages)}"
                new = _of_classes(train, stage.new)
                self._condense(stage, new, device, _saying(watch, where))

    def memory(self, number: int) -> GlobalSet:
        """All sets up to a stage, as they would travel: eight bits a pixel."""
        return aggregate(
            [
                Opened(f"stage-{stage.number:03d}", payload_of(self._state(stage), self.study), {})
                for stage in self.stages[:number]
            ],
            self.study,
        )

    def condensing_seconds(self, stage: Stage) -> float:
        """Wall-clock time in which the stage's classes were condensed."""
        return self._state(stage).figures().seconds

    def _state(self, stage: Stage) -> RoundState:
        return RoundState(self.folder, self.study.digest, stage.number)

    def _condense(self, stage: Stage, new: LabeledImages, device: str, watch: Watch) -> None:
        state, began = self._state(stage), time.time()
        seed = self.seed.child(f"stage-{stage.number}")
        identity = identity_of(self.study.digest, seed.value, new)
        checkpoints = FileCheckpoints(state.checkpoint, identity)
        synthetic = distill(
            PlainSource(new.images, new.labels, self.study.image, device=device),
            self.study,
            seed=seed,
            watch=watch,
            checkpoints=checkpoints,
            experts=ExpertFiles(self.folder / "experts", identity),
        )
        state.keep(synthetic, local_figures(new, synthetic, began))
        checkpoints.clear()


@dataclass(frozen=True)
class _Point:
    """A point of the curve of one order: the memory after a stage, and who learns from it."""

    order: _Order
    stage: Stage
    memory: GlobalSet

    @property
    def name(self) -> str:
        return f"order-{self.order.number}/stage-{self.stage.number}"

    def candidate(self) -> Candidate:
        """Networks that learn from the memory alone; other ones in each order."""
        networks = self.order.study.evaluation.networks
        first = (self.order.number - 1) * networks
        rate = self.memory.student_rate
        return Candidate(self.name, (Ingredient(self.name),), networks, first, rate=rate)

    def scores(self, probabilities: Predictions, test: LabeledImages) -> StageScores:
        """What its networks predict for all test images, scored on the classes seen."""
        stage, study = self.stage, self.order.study
        overall, balanced = accuracies(probabilities, test.labels.numpy(), stage.seen)
        return StageScores(
            new=tuple(study.classes[label] for label in stage.new),
            seen=len(stage.seen),
            images=len(self.memory),
            tested=len(_of_classes(test, stage.seen)),
            accuracy=overall,
            balanced_accuracy=balanced,
            seconds=self.order.condensing_seconds(stage),
        )


def _scored(
    root: RunRoot,
    scenario: Scenario,
    orders: Sequence[_Order],
    test: LabeledImages,
    watch: Watch,
) -> list[OrderScores]:
    """Train and test the networks of all stages of all orders at once."""
    study = orders[0].study
    curves = [[_Point(o, stage, o.memory(stage.number)) for stage in o.stages] for o in orders]
    points = [point for curve in curves for point in curve]
    pictures = {point.name: views_of(point.memory, study) for point in points}
    bench = bench_of(study, pictures, {scenario.read: test})
    found = EvaluationCache(root.evaluations).evaluate(
        replace(bench, device=device_name(scenario.device)),
        [point.candidate() for point in points],
        processes=processors(),
        watch=watch,
    )

    def scores(point: _Point) -> StageScores:
        return point.scores(found[point.name].probabilities[scenario.read], test)

    return [OrderScores(stages=tuple(map(scores, curve))) for curve in curves]


def _saying(watch: Watch, where: str) -> Watch:
    """A watch that says with every step where in the protocol it is."""
    return lambda step: watch(replace(step, stage=step.stage + where))


def _of_classes(images: LabeledImages, labels: Sequence[int]) -> LabeledImages:
    """The images of some classes; their numbers stay."""
    return images.select(torch.isin(images.labels, torch.tensor(labels)).nonzero().squeeze(1))
