"""The model queue: partly trained networks that serve as feature maps (Zhao et al. 2023, 4.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from fedcondense.config.matching import AccuracyReading, Idm
from fedcondense.config.study import Study
from fedcondense.distill.checkpoints import State
from fedcondense.distill.source import Batches, Source
from fedcondense.distill.trajectories import ExpertStore, Layout
from fedcondense.learning.networks import Network, build_network

NetworkMaker = Callable[[torch.Generator], Network]
PERCENT = 100


@dataclass
class QueuedNetwork:
    """A network with its own optimiser and its running training accuracy since the last reset."""

    network: Network
    optimiser: torch.optim.SGD
    seen: Tensor = field(default_factory=lambda: torch.zeros(()))
    correct: Tensor = field(default_factory=lambda: torch.zeros(()))

    def accuracy(self, reading: AccuracyReading) -> Float[Tensor, ""]:
        """Share of its training images classified rightly; 0 while untrained since the reset.

        `percent` is 100 times the share: the published code weighs cross-entropy so.
        """
        return as_read(self.correct / self.seen.clamp(min=1), reading)


def as_read(share: Tensor, reading: AccuracyReading) -> Tensor:
    """An accuracy of 0..1 in the unit in which it weighs cross-entropy."""
    return PERCENT * share if reading is AccuracyReading.PERCENT else share


class ModelQueue:
    """At most `queue_length` networks; the oldest leaves when a fresh one comes.

    `generator` decides which networks are chosen and how they begin, `sampling` which images they
    are trained on. The first members are those of `begun`, as far as they go.
    """

    def __init__(
        self,
        settings: Idm,
        make: NetworkMaker,
        generator: torch.Generator,
        sampling: torch.Generator | None = None,
        *,
        begun: Sequence[Network] = (),
    ) -> None:
        self._settings = settings
        self._make = make
        self._generator = generator
        self._sampling = sampling or generator
        self.members: list[QueuedNetwork] = []
        for number in range(min(settings.queue_start, settings.queue_length)):
            self._push(*begun[number : number + 1])

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

    def sample(self) -> tuple[Network, Tensor]:
        """One network, each as likely, and lambda times its accuracy (eq. 5)."""
        member = self.choose()
        accuracy = member.accuracy(self._settings.accuracy_reading)
        return member.network, self._settings.class_weight * accuracy

    def choose(self) -> QueuedNetwork:
        """One member, each as likely."""
        return self.members[int(torch.randint(len(self.members), (1,), generator=self._generator))]

    def learn(self, source: Batches) -> dict[str, Tensor]:
        """Train some networks, drawn anew, for K steps each on `source`; their mean accuracy."""
        count = min(self._settings.trained_networks, len(self.members))
        order = torch.randperm(len(self.members), generator=self._generator)[:count]
        chosen = [self.members[int(i)] for i in order]
        for member in chosen:
            for _ in range(self._settings.training_steps):
                train_step(member, *self._batch(source))
        shares = [member.accuracy(AccuracyReading.FRACTION) for member in chosen]
        return {"queue_accuracy": torch.stack(shares).mean()}

    def _batch(self, source: Batches) -> tuple[Tensor, Tensor]:
        return source.draw_batch(
            self._settings.training_batch,
            self._sampling,
            balanced=self._settings.class_balanced_training,
        )

    def _push(self, *begun: Network) -> None:
        """Add the network that is given, or a fresh one."""
        network = begun[0] if begun else self._make(self._generator)
        self.members.append(QueuedNetwork(network, self._optimiser(network)))

    def _optimiser(self, network: Network) -> torch.optim.SGD:
        return torch.optim.SGD(
            network.parameters(),
            lr=self._settings.training_rate,
            momentum=self._settings.training_momentum,
            weight_decay=self._settings.weight_decay,
        )

    def state(self) -> State:
        """Everything that a resumed run needs, as tensors by name."""
        state = {
            "length": torch.tensor(len(self.members)),
            "rng": self._generator.get_state(),
            "sampling": self._sampling.get_state(),
        }
        for i, member in enumerate(self.members):
            state[f"{i}.meter"] = torch.stack(
                [member.seen.to(member.correct.device), member.correct]
            )
            for j, parameter in enumerate(member.network.parameters()):
                state[f"{i}.{j}"] = parameter.detach().clone()
                buffer = member.optimiser.state[parameter].get("momentum_buffer")
                if buffer is not None:
                    state[f"{i}.{j}.velocity"] = buffer.clone()
        return state

    def restore(self, state: State) -> None:
        """Take up the state of `state()`."""
        self.members = []
        for i in range(int(state["length"])):
            self._push()
            member = self.members[i]
            for j, parameter in enumerate(member.network.parameters()):
                parameter.data.copy_(state[f"{i}.{j}"])
                if f"{i}.{j}.velocity" in state:
                    velocity = state[f"{i}.{j}.velocity"].clone().to(parameter.device)
                    member.optimiser.state[parameter]["momentum_buffer"] = velocity
            member.seen, member.correct = state[f"{i}.meter"].unbind()
        self._sampling.set_state(state["sampling"])
        self._generator.set_state(state["rng"])  # last: pushing drew from it


def train_step(
    member: QueuedNetwork, images: Float[Tensor, "n c h w"], labels: Int64[Tensor, " n"]
) -> None:
    """One step of cross-entropy on images without augmentation; counts the hits before it."""
    logits = member.network(images)
    member.optimiser.zero_grad()
    F.cross_entropy(logits, labels).backward()
    member.optimiser.step()
    member.seen = member.seen + len(labels)
    member.correct = member.correct + (logits.detach().argmax(dim=1) == labels).sum()


class ExpertQueue:
    """Snapshots of the site's experts in place of a queue: nothing is trained meanwhile.

    Any expert after any epoch is as likely. A deviation from the paper, named in every result.
    """

    def __init__(
        self, study: Study, experts: ExpertStore, device: torch.device, generator: torch.Generator
    ) -> None:
        self._settings, self._experts = study.settings(Idm), experts
        self._device, self._generator = device, generator
        network = build_network(
            study.network,
            study.image,
            classes=len(study.classes),
            generator=torch.Generator().manual_seed(0),  # the weights are replaced
        )
        self._network = network.to(device)
        self._layout = Layout.of(network)

    def maintain(self, iteration: int) -> None:
        """Nothing comes and nothing leaves."""

    def sample(self) -> tuple[Network, Tensor]:
        """An expert as it was after some epoch, and lambda times its accuracy in that epoch."""
        settings = self._settings
        number = self._below(settings.experts.count)
        epoch = 1 + self._below(settings.experts.epochs)
        weights = self._experts.weights(number, epoch).to(self._device, non_blocking=True)
        self._layout.fill(self._network, weights)
        accuracy = self._experts.course(number).accuracies[epoch - 1]
        return self._network, settings.class_weight * as_read(accuracy, settings.accuracy_reading)

    def learn(self, source: Source) -> dict[str, Tensor]:
        """Nothing is learned."""
        return {}

    def state(self) -> State:
        """The generator's state: the experts are kept elsewhere."""
        return {"rng": self._generator.get_state()}

    def restore(self, state: State) -> None:
        """Take up the state of `state()`."""
        self._generator.set_state(state["rng"])

    def _below(self, n: int) -> int:
        return int(torch.randint(n, (1,), generator=self._generator))
