"""Distribution matching (Zhao & Bilen, WACV 2023): class means in fresh random networks."""

from __future__ import annotations

import torch
from torch import Tensor

from fedcondense.config.study import Study
from fedcondense.distill.checkpoints import Checkpoints, NoCheckpoints, State
from fedcondense.distill.distribution import Distillation
from fedcondense.distill.source import Source
from fedcondense.distill.synthetic import SyntheticSet
from fedcondense.distill.trajectories import ExpertStore
from fedcondense.learning.networks import Network, build_network
from fedcondense.learning.randomness import Seed
from fedcondense.progress import Watch, silent


def distill_dm(
    source: Source,
    study: Study,
    *,
    seed: Seed,
    watch: Watch = silent,
    checkpoints: Checkpoints | None = None,
    experts: ExpertStore | None = None,
) -> SyntheticSet:
    """Distill the classes of `source` into `study.images_per_class` images each.

    No experts are needed: `experts` is not looked at. In a later round the pixels begin with the
    site's last set; networks stay random, as the method has it.

    Raises:
        DivergedError: a gradient is no longer finite.
    """
    networks = FreshNetworks(study, source.device, seed.stream("networks"))
    return Distillation(source, study, seed, networks).run(watch, checkpoints or NoCheckpoints())


class FreshNetworks:
    """A new random network at each iteration, which learns nothing."""

    def __init__(self, study: Study, device: torch.device, generator: torch.Generator) -> None:
        self._study, self._device, self._generator = study, device, generator

    def maintain(self, iteration: int) -> None:
        """Nothing is kept."""

    def sample(self) -> tuple[Network, float]:
        """A fresh network; DM has no class regularisation."""
        study = self._study
        network = build_network(
            study.network, study.image, classes=len(study.classes), generator=self._generator
        )
        return network.to(self._device, non_blocking=True), 0.0

    def learn(self, source: Source) -> dict[str, Tensor]:
        """Nothing is learned."""
        return {}

    def state(self) -> State:
        """The generator's state."""
        return {"rng": self._generator.get_state()}

    def restore(self, state: State) -> None:
        """Take up the state of `state()`."""
        self._generator.set_state(state["rng"])
