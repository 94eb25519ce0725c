from __future__ import annotations

import os

import numpy as np
import pytest

from fedcondense.config.study import EvaluationProtocol, ImageSpec, NetworkSpec
from fedcondense.errors import WorkerLost
from fedcondense.learning import evaluation
from fedcondense.learning.evaluation import (
    Bench,
    Candidate,
    Ingredient,
    Pictures,
    evaluate,
    steps_and_batch,
)


def bench(**protocol):
    labels = np.arange(24) % 2
    images = np.random.default_rng(0).normal(size=(24, 1, 16, 16)).astype(np.float32)
    images[labels == 1, :, :8] += 2
    return Bench(
        pictures={
            "real": Pictures(images, labels),
            "few": Pictures(images[:6], labels[:6]),
            "set": Pictures(images[:4], labels[:4]),
        },
        tests={"test": images[12:]},
        protocol=EvaluationProtocol(networks=2, steps=6, batch=8, **protocol),
        network=NetworkSpec(width=4, depth=2),
        image=ImageSpec(size=16),
        classes=2,
        seed=0,
    )


CANDIDATES = [
    Candidate("ceiling", (Ingredient("real"),), networks=2),
    Candidate("alone", (Ingredient("few"),), networks=1),
    Candidate(
        "joined",
        (Ingredient("few", 0.75), Ingredient("set", 0.25)),
        networks=1,
    ),
]


def test_each_network_of_each_candidate_predicts_every_test_set():
    outcomes = evaluate(bench(), CANDIDATES)

    shapes = {name: o.probabilities["test"].shape for name, o in outcomes.items()}
    assert shapes == {"ceiling": (2, 12, 2), "alone": (1, 12, 2), "joined": (1, 12, 2)}
    assert outcomes["ceiling"].weights["head.bias"].shape == (2,)


def test_the_order_and_company_of_candidates_change_nothing():
    together = evaluate(bench(), CANDIDATES)["alone"]

    alone = evaluate(bench(), CANDIDATES[1:2])["alone"]

    assert np.array_equal(together.probabilities["test"], alone.probabilities["test"])


@pytest.mark.slow
def test_two_processes_give_what_one_gives():
    shared = bench()

    one, two = evaluate(shared, CANDIDATES), evaluate(shared, CANDIDATES, processes=2)

    for name in one:
        assert np.array_equal(one[name].probabilities["test"], two[name].probabilities["test"])


def test_the_papers_length_is_in_epochs():
    assert steps_and_batch(EvaluationProtocol(length="paper"), 320) == (2_002, 256)
    assert steps_and_batch(EvaluationProtocol(), 320) == (500, 64)


def _die(*settled):
    os._exit(1)


def test_a_process_that_is_killed_at_its_start_is_an_error_and_no_wait_for_ever():
    with pytest.raises(WorkerLost, match="a process that trained a classifier was killed"):
        list(evaluation._in_pool(_die, (bench(), "x" * 100_000), [(CANDIDATES[0], 0)], 1))
