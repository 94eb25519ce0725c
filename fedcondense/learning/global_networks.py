"""Networks that were trained a little on a global synthetic set, and on nothing else.

They are feature maps, so they are stopped early: partly trained networks tell images apart better
than finished ones (Zhao et al. 2023, sec. 4.2). Everybody who has the set builds the same ones.
"""

from __future__ import annotations

from fedcondense.config.study import Study
from fedcondense.learning.networks import Network, build_network
from fedcondense.learning.randomness import Seed
from fedcondense.learning.training import RATE, TrainingSet, train_classifier
from fedcondense.progress import Step, Watch, silent

STEPS = 100  # some seconds on one core; enough to be partly trained
BATCH = 64
STAGE = "learning from the global set"


def train_on_global_set(
    views: TrainingSet,
    study: Study,
    count: int,
    *,
    round: int,
    rate: float | None = None,
    watch: Watch = silent,
) -> tuple[Network, ...]:
    """`count` networks of the study, each from its own public seed, trained on `views`.

    `round` is the one that they are for: each draws anew. `rate` is the step size that was learned
    with the set, where one was. They are computed where `views` lie.
    """
    return tuple(
        _trained(views, study, Seed(study.seed).child(f"global-{round}"), number, rate, watch)
        for number in range(count)
    )


def _trained(
    views: TrainingSet, study: Study, seed: Seed, number: int, rate: float | None, watch: Watch
) -> Network:
    generator = seed.stream(f"network-{number}")
    fresh = build_network(
        study.network, study.image, classes=len(study.classes), generator=generator
    )
    network = fresh.to(views.images.device)
    train_classifier(
        network,
        [views],
        steps=STEPS,
        families=[str(family) for family in study.evaluation.families],
        generator=generator,
        rate=RATE if rate is None else rate,
    )
    watch(Step(STAGE, number + 1, number + 1))
    return network
