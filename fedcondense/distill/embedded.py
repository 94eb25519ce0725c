"""Distribution matching against class means that are given as numbers: no image is drawn.

Algorithms of their own: fixed maps in place of fresh or trained networks, means of unit vectors,
no siamese augmentation. The given means stay what they are for as long as the pixels move.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from fedcondense.config.matching import Idm
from fedcondense.config.study import Study
from fedcondense.distill.checkpoints import Checkpoints, NoCheckpoints
from fedcondense.distill.idm import online_queue
from fedcondense.distill.matching import class_means, class_regularisation, matching_loss
from fedcondense.distill.pixel_descent import PixelDescent
from fedcondense.distill.source import EmbeddedSource
from fedcondense.distill.synthetic import SyntheticSet
from fedcondense.distill.trajectories import ExpertStore
from fedcondense.learning.feature_maps import PublicMap, unit_embeddings
from fedcondense.learning.networks import Network
from fedcondense.learning.partition import expand_partitions
from fedcondense.learning.randomness import Seed
from fedcondense.progress import Watch, silent


def distill_embedded(
    source: EmbeddedSource,
    study: Study,
    *,
    seed: Seed,
    watch: Watch = silent,
    checkpoints: Checkpoints | None = None,
    experts: ExpertStore | None = None,
) -> SyntheticSet:
    """Distill the classes of `source` into `study.images_per_class` images each.

    `dm` matches means alone; `idm` adds the class regularisation by networks that are trained on
    the synthetic set itself. Neither `checkpoints` nor `experts` is looked at: a run that is
    begun again has other means, which those pixels were not learned from.

    Raises:
        DivergedError: a gradient is no longer finite.
    """
    return EmbeddedDistillation(source, study, seed).run(watch, NoCheckpoints())


class EmbeddedDistillation(PixelDescent):
    """The state of one run; `distill_embedded` is the way to run it."""

    def __init__(self, source: EmbeddedSource, study: Study, seed: Seed) -> None:
        super().__init__(source, study, seed)
        embedded = source.class_embeddings()
        self.maps = embedded.maps
        self.targets = embedded.targets.to(source.device, torch.float32)
        self.draws = seed.stream("matching")
        has_queue = isinstance(study.distill, Idm)
        self.queue = online_queue(source, study, seed) if has_queue else None

    def iterate(self) -> dict[str, Tensor]:
        """One iteration: match in one of the maps, and let the queue's networks learn."""
        number = int(torch.randint(len(self.maps), (1,), generator=self.draws))
        network, weight = self._classifier()
        figures = self._descend(lambda pixels: self._losses(pixels, number, network, weight))
        if self.queue is not None:
            figures |= self.queue.learn(OwnViews(*self._views(self.pixels)))
        self.iteration += 1
        return figures

    def _classifier(self) -> tuple[Network | None, Tensor | float]:
        """A network of the queue, and lambda times its accuracy on the synthetic set."""
        if self.queue is None:
            return None, 0.0
        self.queue.maintain(self.iteration)
        return self.queue.sample()

    def _losses(
        self, pixels: Tensor, number: int, network: Network | None, weight: Tensor | float
    ) -> tuple[Tensor, Tensor]:
        views, labels = self._views(pixels)
        matched = embedding_loss(self.maps[number], views, self.targets[number])
        if network is None:
            return matched, torch.zeros_like(matched)
        entropy = class_regularisation(network(views), labels, len(self.source.labels))
        return matched, weight * entropy

    def _views(self, pixels: Tensor) -> tuple[Float[Tensor, "n c h w"], Int64[Tensor, " n"]]:
        """What a classifier will be trained on, class by class, with labels."""
        partition = self.settings.partition
        per_class = pixels.split(len(pixels) // len(self.source.labels))
        views = torch.cat([expand_partitions(own, partition) for own in per_class])
        return views, self.start.labels.repeat_interleave(partition * partition)


def embedding_loss(
    public_map: PublicMap,
    views: Float[Tensor, "n c h w"],
    targets: Float[Tensor, "classes d"],
) -> Float[Tensor, ""]:
    """Squared distance of mean unit vectors to `targets`, summed over classes.

    `views` are equally many of each class, one class after another. In the network's own unit, so
    that a step size serves `dm` and `idm` in this form and in their published one.
    """
    classes = len(targets)
    means = class_means(unit_embeddings(public_map, views), [len(views) // classes] * classes)
    return public_map.scale * matching_loss(targets, means)


class OwnViews:
    """The synthetic set as something to train on, as it is at this iteration."""

    def __init__(self, views: Float[Tensor, "n c h w"], labels: Int64[Tensor, " n"]) -> None:
        self._views, self._labels = views.detach(), labels

    def draw_batch(
        self, count: int, generator: torch.Generator, *, balanced: bool
    ) -> tuple[Float[Tensor, "n c h w"], Int64[Tensor, " n"]]:
        """See `Batches.draw_batch`; classes are of one size, so every batch is about balanced."""
        order = torch.randperm(len(self._views), generator=generator, device=generator.device)
        rows = order[:count].to(self._views.device, non_blocking=True)
        return self._views[rows], self._labels[rows]
