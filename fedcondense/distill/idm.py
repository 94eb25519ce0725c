"""Improved distribution matching (Zhao et al., CVPR 2023, sections 4.1-4.4, algorithm 1)."""

from __future__ import annotations

import torch

from fedcondense.config.matching import Idm, Queue
from fedcondense.config.study import Study
from fedcondense.distill.checkpoints import Checkpoints, NoCheckpoints
from fedcondense.distill.distribution import Distillation, FeatureMaps, sampling_stream
from fedcondense.distill.experts import train_experts
from fedcondense.distill.queue import ExpertQueue, ModelQueue
from fedcondense.distill.refinement import begun_networks
from fedcondense.distill.source import Source
from fedcondense.distill.synthetic import SyntheticSet
from fedcondense.distill.trajectories import ExpertStore, Shelf
from fedcondense.learning.networks import Network, build_network
from fedcondense.learning.randomness import Seed
from fedcondense.progress import Watch, silent


def distill_idm(
    source: Source,
    study: Study,
    *,
    seed: Seed,
    watch: Watch = silent,
    checkpoints: Checkpoints | None = None,
    experts: ExpertStore | None = None,
) -> SyntheticSet:
    """Distill the classes of `source` into `study.images_per_class` images each.

    Returns the last iterate, or the moving average where the study asks for it: nothing is chosen
    by a score. The same seed, study and images on one thread give the same bits, with or without
    an interruption. `experts` is looked at only where the study's queue is of experts. In a later
    round the queue's first networks, or all experts, begin as networks that know the global set.

    Raises:
        DivergedError: a gradient is no longer finite.
    """
    checkpoints = checkpoints or NoCheckpoints()
    if study.settings(Idm).queue is Queue.EXPERTS:
        store = experts or Shelf()
        train_experts(source, study, store, seed=seed, watch=watch, checkpoints=checkpoints)
        maps: FeatureMaps = ExpertQueue(study, store, source.device, seed.stream("queue"))
    else:
        maps = online_queue(source, study, seed)
    return Distillation(source, study, seed, maps).run(watch, checkpoints)


def online_queue(source: Source, study: Study, seed: Seed) -> ModelQueue:
    """The paper's queue, whose networks are trained while the pixels are learned."""

    def fresh(generator: torch.Generator) -> Network:
        classes = len(study.classes)
        built = build_network(study.network, study.image, classes=classes, generator=generator)
        return built.to(source.device, non_blocking=True)

    draws = seed.stream("queue")
    sampling = sampling_stream(draws, seed, "queue", source.device)
    begun = begun_networks(source)
    return ModelQueue(study.settings(Idm), fresh, draws, sampling, begun=begun)
