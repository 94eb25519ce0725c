"""Whether what is condensed teaches: on a toy task, from noise, against random real images."""

from __future__ import annotations

import pytest
import torch

from fedcondense.distill.methods import distill
from fedcondense.distill.source import PlainSource
from fedcondense.learning.networks import build_network
from fedcondense.learning.randomness import Seed
from fedcondense.learning.training import RATE, TrainingSet, predict, train_classifier

from .conftest import toy_images, toy_study

IPC = 5
STUDIES = {
    "idm": toy_study(
        "idm",
        ipc=IPC,
        iterations=200,
        real_batch=64,
        training_batch=64,
        partition=1,
        image_rate=5.0,
    ),
    "pruned-mtt": toy_study(
        "pruned-mtt",
        ipc=IPC,
        iterations=100,
        student_steps=6,
        synthetic_batch=10,
        expert_epochs=2,
        max_start=5,
        image_rate=300.0,
        experts={"count": 6, "epochs": 6, "batch": 32},
    ),
}


@pytest.fixture(scope="module")
def real() -> PlainSource:
    return PlainSource(*toy_images(100, 0), toy_study().image)


@pytest.fixture(scope="module")
def unseen() -> tuple[torch.Tensor, torch.Tensor]:
    source = PlainSource(*toy_images(50, 1), toy_study().image)
    images = torch.cat([source.draw(c, 50, torch.Generator()) for c in range(4)])
    return images, torch.arange(4).repeat_interleave(50)


def score(images, labels, unseen, *, rate: float = RATE) -> float:
    """Mean accuracy of three fresh networks that were trained on the set."""
    study, right = toy_study(), 0.0
    for number in range(3):
        generator = Seed(9).stream(f"{number}")
        network = build_network(study.network, study.image, classes=4, generator=generator)
        train_classifier(
            network,
            [TrainingSet(images, labels, 64)],
            steps=150,
            families=[],
            generator=generator,
            rate=rate,
        )
        right += float((predict(network, unseen[0]).argmax(dim=1) == unseen[1]).float().mean())
    return right / 3


@pytest.fixture(scope="module")
def random_score(real, unseen) -> float:
    sets = [distill(real, toy_study("random", ipc=IPC), seed=Seed(seed)) for seed in range(3)]
    return sum(score(s.images, s.labels, unseen) for s in sets) / 3


@pytest.mark.slow
def test_few_random_images_stay_ten_points_below_all_of_them(real, unseen, random_score):
    every = torch.cat([real.draw(c, 100, torch.Generator()) for c in range(4)])

    ceiling = score(every, torch.arange(4).repeat_interleave(100), unseen)

    assert ceiling - random_score >= 0.10


@pytest.mark.slow
@pytest.mark.parametrize("method", STUDIES)
def test_condensed_images_teach_more_than_random_ones_of_the_same_number(
    method, real, unseen, random_score
):
    ours = distill(real, STUDIES[method], seed=Seed(0))

    distilled = score(ours.images, ours.labels, unseen, rate=ours.student_rate or RATE)

    assert len(ours.labels) == 4 * IPC
    assert distilled > random_score
