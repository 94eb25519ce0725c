"""The model queue: partly trained networks that serve as feature maps (Zhao et al. 2023, 4.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from fedcondense.config.methods import AccuracyReading, Idm
from fedcondense.distill.source import Source
from fedcondense.learning.networks import ConvNet

NetworkMaker = Callable[[torch.Generator], ConvNet]


@dataclass
class QueuedNetwork:
    """A network with its own optimiser and its running training accuracy since the last reset."""

    network: ConvNet
    optimiser: torch.optim.SGD
    seen: Tensor = field(default_factory=lambda: torch.zeros(()))
    correct: Tensor = field(default_factory=lambda: torch.zeros(()))

    def accuracy(self, reading: AccuracyReading) -> Float[Tensor, ""]:
        """Share of its training images classified rightly; 0 while untrained since the reset.

        `percent` is 100 times the share: the published code weighs cross-entropy so.
        """
        share = self.correct / self.seen.clamp(min=1)
        return 100 * share if reading is AccuracyReading.PERCENT else share


class ModelQueue:
    """At most `queue_length` networks; the oldest leaves when a fresh one comes."""

    def __init__(self, settings: Idm, make: NetworkMaker, generator: torch.Generator) -> None:
        self._settings = settings
        self._make = make
        self._generator = generator
        self.members: list[QueuedNetwork] = []
        for _ in range(min(settings.queue_start, settings.queue_length)):
            self._push()

    def maintain(self, iteration: int) -> None:
        """Push a fresh network at every push interval, the first included; reset accuracies."""
        if iteration % self._settings.pushes_every == 0:
            if len(self.members) >= self._settings.queue_length:
                self.members.pop(0)
            self._push()
        reset = self._settings.accuracy_reset_interval
        if reset is not None and iteration % reset == 0:
            for member in self.members:
                member.seen, member.correct = torch.zeros(()), torch.zeros(())

    def sample(self) -> QueuedNetwork:
        """One network, each as likely."""
        return self.members[int(torch.randint(len(self.members), (1,), generator=self._generator))]

    def train(self, source: Source) -> float:
        """Train some networks, drawn anew, for K steps each on real images; their mean accuracy."""
        count = min(self._settings.trained_networks, len(self.members))
        order = torch.randperm(len(self.members), generator=self._generator)[:count]
        chosen = [self.members[int(i)] for i in order]
        for member in chosen:
            for _ in range(self._settings.training_steps):
                train_step(member, *self._batch(source))
        shares = [member.accuracy(AccuracyReading.FRACTION) for member in chosen]
        return float(torch.stack(shares).mean())

    def _batch(self, source: Source) -> tuple[Tensor, Tensor]:
        return source.draw_batch(
            self._settings.training_batch,
            self._generator,
            balanced=self._settings.class_balanced_training,
        )

    def _push(self) -> None:
        network = self._make(self._generator)
        self.members.append(QueuedNetwork(network, self._optimiser(network)))

    def _optimiser(self, network: ConvNet) -> torch.optim.SGD:
        return torch.optim.SGD(
            network.parameters(),
            lr=self._settings.training_rate,
            momentum=self._settings.training_momentum,
            weight_decay=self._settings.weight_decay,
        )

    def state(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs, as tensors by name."""
        state = {"length": torch.tensor(len(self.members)), "rng": self._generator.get_state()}
        for i, member in enumerate(self.members):
            state[f"{i}.meter"] = torch.stack([member.seen, member.correct])
            for j, parameter in enumerate(member.network.parameters()):
                state[f"{i}.{j}"] = parameter.detach().clone()
                buffer = member.optimiser.state[parameter].get("momentum_buffer")
                if buffer is not None:
                    state[f"{i}.{j}.velocity"] = buffer.clone()
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up the state of `state()`."""
        self.members = []
        for i in range(int(state["length"])):
            self._push()
            member = self.members[i]
            member.seen, member.correct = state[f"{i}.meter"].unbind()
            for j, parameter in enumerate(member.network.parameters()):
                parameter.data.copy_(state[f"{i}.{j}"])
                if f"{i}.{j}.velocity" in state:
                    velocity = state[f"{i}.{j}.velocity"].clone()
                    member.optimiser.state[parameter]["momentum_buffer"] = velocity
        self._generator.set_state(state["rng"])  # last: pushing drew from it


def train_step(
    member: QueuedNetwork, images: Float[Tensor, "n c h w"], labels: Int64[Tensor, " n"]
) -> None:
    """One step of cross-entropy on real images without augmentation; counts the hits before it."""
    logits = member.network(images)
    member.optimiser.zero_grad()
    F.cross_entropy(logits, labels).backward()
    member.optimiser.step()
    member.seen = member.seen + len(labels)
    member.correct = member.correct + (logits.detach().argmax(dim=1) == labels).sum()
