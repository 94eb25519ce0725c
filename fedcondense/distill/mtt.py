"""Trajectory matching: plain (Cazenavette et al., CVPR 2022) and pruned (Li et al. 2023, alg. 1).

A student starts where an expert once was, trains on the synthetic set, and is held against where
the expert came to. `pruning` holds the loss, `unrolling` the gradient; here is the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from fedcondense.config.study import Study
from fedcondense.config.synthesis import Start
from fedcondense.config.trajectory import LARGEST_RATE, LEAST_RATE, Mtt
from fedcondense.distill.averaging import MovingAverage
from fedcondense.distill.checkpoints import (
    Checkpoints,
    NoCheckpoints,
    State,
    of_prefix,
    with_prefix,
)
from fedcondense.distill.descent import Descent, raw_rate, student_rate
from fedcondense.distill.experts import train_experts
from fedcondense.distill.guard import FiniteGuard, LossGuard
from fedcondense.distill.pruning import Segment, matching_loss, pruned_shares
from fedcondense.distill.refinement import begun, begun_logits, begun_rate
from fedcondense.distill.segments import Segments
from fedcondense.distill.soft_labels import expert_logits, first_logits
from fedcondense.distill.source import Source
from fedcondense.distill.synthetic import SyntheticSet, initial_set
from fedcondense.distill.trajectories import ExpertStore, Shelf
from fedcondense.distill.unrolling import (
    Gradients,
    Learned,
    Student,
    StudentStep,
    Unrolling,
    adjoint,
    fits_naive,
    graph_bytes,
    naive,
)
from fedcondense.errors import DeviceMemoryError
from fedcondense.learning.augment import draw_augmentation
from fedcondense.learning.memory import free_bytes
from fedcondense.learning.networks import build_network
from fedcondense.learning.randomness import Seed
from fedcondense.learning.training import shuffled_rows
from fedcondense.progress import Step, Watch, silent

MEGABYTE = 1e6  # bytes
HINT = "lower distill.image_rate, distill.rate_rate or distill.max_start"


def distill_mtt(
    source: Source,
    study: Study,
    *,
    seed: Seed,
    watch: Watch = silent,
    checkpoints: Checkpoints | None = None,
    experts: ExpertStore | None = None,
) -> SyntheticSet:
    """Distill the classes of `source` into `study.images_per_class` images each.

    Serves `mtt` and `pruned-mtt`: pruning at threshold 0 is plain matching. Returns the last
    iterate, or the moving average where the study asks for it, with the learned step size. The
    same seed, study and images on one thread give the same bits, with or without an interruption.

    Raises:
        DivergedError: the loss or a gradient left the finite numbers, or no expert moved.
    """
    checkpoints, store = checkpoints or NoCheckpoints(), experts or Shelf()
    train_experts(source, study, store, seed=seed, watch=watch, checkpoints=checkpoints)
    return TrajectoryMatching(source, study, seed, store).run(watch, checkpoints)


class TrajectoryMatching:
    """The state of one run; `distill_mtt` is the way to run it."""

    def __init__(
        self,
        source: Source,
        study: Study,
        seed: Seed,
        experts: ExpertStore,
        *,
        unrolling: Unrolling | None = None,
    ) -> None:
        self.source, self.study = source, study
        self.settings = study.settings(Mtt)
        self.draws = seed.stream("matching")
        self.experts = experts
        self.segments = Segments(experts, self.settings, source.device)
        first = initial_set(
            source,
            study.image,
            start=self.settings.start,
            images_per_class=study.images_per_class,
            partition=self.settings.partition,
            generator=seed.stream("start"),
        )
        self.start = begun(source, first)
        network = build_network(
            study.network, study.image, classes=len(study.classes), generator=seed.stream("student")
        )
        self.student = Student.of(network.to(source.device), self.settings.partition)
        self.moving = self._at_rest()
        self.average = MovingAverage(self.settings.averaging)
        self.finite = FiniteGuard(source.device, hint=HINT)
        self.jumps = LossGuard(self.settings.largest_loss, hint=HINT)
        self._wanted = unrolling
        self._chosen: Unrolling | None = None
        self.iteration = 0

    def run(self, watch: Watch, checkpoints: Checkpoints) -> SyntheticSet:
        """Iterate from where `checkpoints` left off, or from the start, to the end."""
        kept = checkpoints.latest()
        if kept is not None and "iteration" in kept:
            self._restore(kept)
        while self.iteration < self.settings.iterations:
            figures = self.iterate()
            watch(Step("condensing", self.iteration, self.settings.iterations, figures))
            checkpoints.offer(self._state)
        return self._result()

    def iterate(self) -> dict[str, float]:
        """One iteration: draw a segment, unroll a student on it, step."""
        segment = self.segments.draw(self.draws)
        found = self._differentiate(segment, self._steps())
        self._step(found)
        self.iteration += 1
        return {
            "loss": float(found.loss),
            "student_rate": float(student_rate(self.moving["rate"].value)),
            "skipped_share": self.jumps.skipped / max(1, len(self.jumps.recent)),
            **self._pruned(found.student, segment),
        }

    def _pruned(self, student: Tensor, segment: Segment) -> dict[str, float]:
        """The share of parameters left out, of all and by tensor, where any may be."""
        threshold = self.settings.threshold
        if threshold == 0:
            return {}
        shares = pruned_shares(student, segment, threshold, self.student.layout)
        return {name: float(share) for name, share in shares.items()}

    def _at_rest(self) -> dict[str, Descent]:
        settings = self.settings
        begin = begun_rate(self.source, settings.student_rate)
        first = raw_rate(torch.tensor(begin, device=self.source.device))
        # the raw rate is nearly log alpha: for a step of alpha itself its gradient counts alpha^2
        rate_rate = settings.rate_rate / begin**2
        moving = {
            "pixels": Descent.of(
                self.start.images.clone(), settings.image_rate, settings.image_momentum
            ),
            "rate": Descent.of(first, rate_rate, settings.image_momentum),
        }
        if settings.soft_labels:
            logits = begun_logits(self.source, self.start.labels, self._first_logits())
            moving["logits"] = Descent.of(logits, settings.label_rate, settings.label_momentum)
        return moving

    def _first_logits(self) -> Float[Tensor, "n k"]:
        labels, classes, experts = self.start.labels, len(self.study.classes), self.settings.experts
        if self.settings.start is Start.NOISE:
            return first_logits(labels, classes)
        last = (
            self.experts.weights(number, experts.epochs).to(self.source.device)
            for number in range(experts.count)
        )
        return expert_logits(self.student, last, self.start.images, labels, classes)

    def _steps(self) -> list[StudentStep]:
        settings, parts = self.settings, self.settings.partition**2
        rows = shuffled_rows(len(self.start.labels), settings.synthetic_batch, self.draws)
        return [
            StudentStep(
                chunk.to(self.source.device),
                draw_augmentation(settings.families, self.draws, parts * len(chunk)),
            )
            for chunk in islice(rows, settings.student_steps)
        ]

    def _differentiate(self, segment: Segment, steps: Sequence[StudentStep]) -> Gradients:
        logits = self.moving.get("logits")
        learned = Learned(
            self.moving["pixels"].value,
            self.start.labels,
            None if logits is None else logits.value,
            student_rate(self.moving["rate"].value),
        )
        if self._chosen is None:
            self._chosen = choose_unrolling(
                self.student, learned, segment.start, steps, wanted=self._wanted
            )
        return self._chosen(
            self.student,
            learned,
            segment.start,
            steps,
            lambda weights: matching_loss(weights, segment, self.settings.threshold),
        )

    def _step(self, found: Gradients) -> None:
        """Move what is learned, unless a number is not finite or the loss has jumped."""
        gradients = {
            "pixels": found.pixels,
            "rate": found.rate * torch.sigmoid(self.moving["rate"].value),
        }
        if found.logits is not None:
            gradients["logits"] = found.logits
        moved = {n: d.stepped(gradients[n]) for n, d in self.moving.items()}
        numbers = [*(d.value for d in moved.values()), _within(student_rate(moved["rate"].value))]
        finite = bool(self.finite.accepts(found.loss, *numbers))
        self.finite.check(self.iteration)
        if finite and self.jumps.accepts(float(found.loss), self.iteration):
            self.moving = moved
        self.average.update({name: d.value for name, d in self.moving.items()})

    def _result(self) -> SyntheticSet:
        soft = self.average.value("logits").softmax(dim=1) if "logits" in self.moving else None
        return SyntheticSet(
            self.average.value("pixels"),
            self.start.labels,
            self.start.images,
            soft=soft,
            student_rate=float(student_rate(self.average.value("rate"))),
        )

    def _state(self) -> State:
        moving = [with_prefix(name, descent.state()) for name, descent in self.moving.items()]
        state: State = {
            "iteration": torch.tensor(self.iteration),
            "draws": self.draws.get_state(),
            "below": torch.tensor(self.jumps.below),
            "recent": torch.tensor(self.jumps.recent, dtype=torch.bool),
            **with_prefix("average", self.average.state()),
        }
        for part in moving:
            state |= part
        return state

    def _restore(self, state: State) -> None:
        self.iteration = int(state["iteration"])
        self.draws.set_state(state["draws"])
        self.jumps.below, self.jumps.recent = int(state["below"]), state["recent"].tolist()
        self.average.restore(of_prefix("average", state))
        self.moving = {n: d.restored(of_prefix(n, state)) for n, d in self.moving.items()}


def _within(rate: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """NaN where a step size is so small or large that a student would learn nothing."""
    fits = (rate >= LEAST_RATE) & (rate <= LARGEST_RATE)
    return torch.where(fits, rate, torch.nan)


def choose_unrolling(
    student: Student,
    learned: Learned,
    start: Float[Tensor, " p"],
    steps: Sequence[StudentStep],
    *,
    wanted: Unrolling | None = None,
) -> Unrolling:
    """Naive where the graphs of all steps fit into half of the free memory, else adjoint.

    The naive way is the faster one: 9 forward passes an image and step, against 12. `wanted` is
    for tests and measurements; only where it is the naive way must it fit.

    Raises:
        DeviceMemoryError: the naive way is wanted and does not fit.
    """
    if wanted is not None and wanted is not naive:
        return wanted
    largest = max(steps, key=lambda step: len(step.rows))
    needed, free = graph_bytes(student, learned, start, largest), free_bytes(start.device)
    if fits_naive(needed, len(steps), free):
        return naive
    if wanted is naive:
        raise DeviceMemoryError(
            f"the graphs of {len(steps)} steps of {needed / MEGABYTE:.1f} MB are more than half of "
            f"the {free / MEGABYTE:.1f} MB that are free",
            hint="leave the choice to the memory probe",
        )
    return adjoint
