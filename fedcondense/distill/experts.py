"""Experts: networks that a site trains on its own images, recorded after every epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from threading import Event, Lock

import torch
import torch.nn.functional as F
from torch import Tensor

from fedcondense.config.experts import Experts
from fedcondense.config.study import Study
from fedcondense.distill.checkpoints import Checkpoints, NoCheckpoints, State
from fedcondense.distill.refinement import common_start
from fedcondense.distill.source import Source
from fedcondense.distill.trajectories import Course, Expert, ExpertStore, Layout, flat_weights
from fedcondense.errors import DivergedError
from fedcondense.learning.augment import augment, draw_augmentation
from fedcondense.learning.networks import Network, build_network
from fedcondense.learning.randomness import Seed
from fedcondense.progress import Step, Watch, silent

STAGE = "training experts"
Train = Callable[[int, Checkpoints], None]


def experts_settings(study: Study) -> Experts:
    """How the method of `study` wants its experts; the defaults where it has none."""
    return getattr(study.distill, "experts", Experts())


def train_experts(
    source: Source,
    study: Study,
    store: ExpertStore,
    *,
    seed: Seed,
    watch: Watch = silent,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Train the experts of `study.distill.experts` that `store` does not have yet.

    Each has its own generator, so it is the same expert in whatever order and company. On a CPU
    with several threads, as many are trained at once as there are threads, each on one. A single
    expert that was interrupted goes on from its last kept epoch. In a later round all begin at one
    public point.

    Raises:
        DivergedError: the loss of an expert is no longer finite.
    """
    settings = experts_settings(study)
    missing = [number for number in range(settings.count) if not store.has(number)]
    progress = _Progress(settings, watch, missing)

    def train(number: int, kept: Checkpoints) -> None:
        learner = Learner(source, study, number, seed.child("experts"))
        store.keep(number, learner.run(progress, kept))

    if source.device.type == "cpu" and torch.get_num_threads() > 1 and len(missing) > 1:
        _several_at_once(train, missing, progress)
    else:
        for number in missing:
            train(number, checkpoints or NoCheckpoints())


def _several_at_once(train: Train, missing: Sequence[int], progress: _Progress) -> None:
    """In threads, which share the images: the library lets go of the interpreter's lock."""
    with _one_thread_each() as threads, ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(train, number, NoCheckpoints()) for number in missing]
        try:
            for future in as_completed(futures):  # the first to fail is heard at once
                future.result()
        finally:
            progress.stop.set()  # without an error there is nothing left to stop
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread_each() -> Iterator[int]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


class Learner:
    """One expert in training: plain SGD, a record after every epoch."""

    def __init__(self, source: Source, study: Study, number: int, seed: Seed) -> None:
        self.source, self.settings, self.number = source, experts_settings(study), number
        self.generator = seed.stream(f"expert-{number}")
        network = build_network(
            study.network, study.image, classes=len(study.classes), generator=self.generator
        )
        begin = common_start(source)
        if begin is not None:
            Layout.of(network).fill(network, begin)
        self.network: Network = network.to(source.device)
        self.optimiser = torch.optim.SGD(
            self.network.parameters(),
            lr=self.settings.rate,
            momentum=self.settings.momentum,
            weight_decay=self.settings.weight_decay,
        )
        self.weights = [flat_weights(self.network)]
        self.losses: list[float] = []
        self.accuracies: list[float] = []

    def run(self, progress: _Progress, checkpoints: Checkpoints) -> Expert:
        """Train to the last epoch, from where `checkpoints` left off."""
        kept = checkpoints.latest()
        if kept is not None and int(kept.get("expert", -1)) == self.number:
            self._restore(kept)
        while len(self.losses) < self.settings.epochs:
            self._epoch()
            progress.epoch(self.number, len(self.losses), self.losses[-1], self.accuracies[-1])
            checkpoints.offer(self._state)
        course = Course(torch.tensor(self.losses), torch.tensor(self.accuracies))
        return Expert(torch.stack(self.weights), course)

    def _epoch(self) -> None:
        loss_sum = torch.zeros((), device=self.source.device)
        hits, seen = torch.zeros((), device=self.source.device), 0
        for images, labels in self._batches():
            drawn = draw_augmentation(self.settings.families, self.generator, len(images))
            logits = self.network(augment(images, drawn))
            loss = F.cross_entropy(logits, labels)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            loss_sum += loss.detach() * len(labels)
            hits += (logits.detach().argmax(dim=1) == labels).sum()
            seen += len(labels)
        self.losses.append(float(loss_sum) / seen)
        self.accuracies.append(float(hits) / seen)
        self.weights.append(flat_weights(self.network))
        if not bool(torch.isfinite(self.weights[-1]).all()):
            raise DivergedError(
                f"expert {self.number} is not finite after epoch {len(self.losses)}",
                hint="lower distill.experts.rate",
            )

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.source.epoch(
            self.settings.batch, self.generator, balanced=self.settings.class_balanced
        )

    def _state(self) -> State:
        velocities = {
            f"velocity.{i}": self.optimiser.state[p]["momentum_buffer"].clone()
            for i, p in enumerate(self.network.parameters())
            if self.optimiser.state[p].get("momentum_buffer") is not None
        }
        return {
            "expert": torch.tensor(self.number),
            "weights": torch.stack(self.weights),
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "accuracies": torch.tensor(self.accuracies, dtype=torch.float64),
            "rng": self.generator.get_state(),
            **velocities,
        }

    def _restore(self, state: State) -> None:
        self.weights = list(state["weights"].clone())
        self.losses, self.accuracies = state["losses"].tolist(), state["accuracies"].tolist()
        self.generator.set_state(state["rng"])
        Layout.of(self.network).fill(self.network, self.weights[-1].to(self.source.device))
        for i, parameter in enumerate(self.network.parameters()):
            if f"velocity.{i}" in state:
                velocity = state[f"velocity.{i}"].clone().to(parameter.device)
                self.optimiser.state[parameter]["momentum_buffer"] = velocity


class _Progress:
    """Counts epochs over all experts, from whatever thread they come."""

    def __init__(self, settings: Experts, watch: Watch, missing: Sequence[int]) -> None:
        self._settings, self._watch = settings, watch
        self._done = settings.epochs * (settings.count - len(missing))
        self._reached = dict.fromkeys(missing, 0)
        self._lock = Lock()
        self.stop = Event()

    def epoch(self, number: int, epoch: int, loss: float, accuracy: float) -> None:
        """Report that an expert ended an epoch.

        Raises:
            CancelledError: another expert failed, or the operator stopped the run.
        """
        if self.stop.is_set():
            raise CancelledError
        total = self._settings.epochs * self._settings.count
        figures = {
            "expert": float(number + 1),
            "epoch": float(epoch),
            "loss": loss,
            "accuracy": accuracy,
        }
        with self._lock:
            self._reached[number] = epoch
            done = self._done + sum(self._reached.values())
            self._watch(Step(STAGE, done, total, figures))
