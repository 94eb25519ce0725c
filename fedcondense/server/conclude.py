"""The coordinator's whole path on one page: from sealed bytes to a scored global synthetic set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from fedcondense.config.study import Study
from fedcondense.data.dataset import LabeledImages
from fedcondense.exchange.keys import OpeningKey, SigningKey
from fedcondense.exchange.round_result import result_of, sign_result
from fedcondense.files.storage import write_atomically, write_json
from fedcondense.learning.evaluation import (
    Bench,
    Candidate,
    Ingredient,
    Outcome,
    Pictures,
    evaluate,
)
from fedcondense.learning.partition import expand_labels, expand_partitions
from fedcondense.learning.pixels import normalise
from fedcondense.learning.scores import TestSet, resample
from fedcondense.server.aggregate import GlobalSet, aggregate, write_global_set
from fedcondense.server.classifier import Origin, write_classifier
from fedcondense.server.opening import discard_opened, open_round
from fedcondense.server.predictions import write_predictions
from fedcondense.server.run_directory import RunDirectory

GLOBAL = "global"  # the candidate that is trained on the global synthetic set

Evaluate = Callable[[Bench, Sequence[Candidate]], dict[str, Outcome]]


@dataclass(frozen=True)
class Conclusion:
    """The global synthetic set of a round, and what its networks predict on each test set."""

    global_set: GlobalSet
    outcome: Outcome


def conclude_round(
    run: RunDirectory,
    round_number: int,
    key: OpeningKey,
    tests: Mapping[str, LabeledImages],
    *,
    signer: SigningKey,
    evaluation: Evaluate = evaluate,
) -> Conclusion:
    """Open, unite, train and score; everything is in the run directory once `done.json` is.

    Args:
        run: where the sealed contributions are.
        round_number: the round, from 1.
        key: the run's opening key; it is used here and nowhere else.
        tests: the server's own evaluation sets by name; the first one stands on the model card.
        signer: the run-signing key, which signs what sites are told of the round.
        evaluation: trains the networks: how many at once, on which device, and who is told.

    Raises:
        QuorumMissed: fewer valid contributions than the study's quorum; nothing is written.
    """
    study = run.study()
    opened = open_round(run, round_number, key)
    global_set = aggregate(opened, study)
    write_global_set(run.global_set(round_number), global_set, study)
    discard_opened(run, round_number)
    bench = bench_of(study, {GLOBAL: views_of(global_set, study)}, tests)
    candidate = Candidate(
        GLOBAL,
        (Ingredient(GLOBAL),),
        study.evaluation.networks,
        rate=global_set.student_rate,
    )
    outcome = evaluation(bench, [candidate])[GLOBAL]
    scores = {name: _scores(outcome, name, images, study) for name, images in tests.items()}
    write_predictions(run.predictions(round_number), outcome.probabilities, tests)
    write_json(run.scores(round_number), scores)
    origin = Origin(len(global_set), len(opened), global_set.sha256, _on_card(scores))
    write_classifier(run.classifier(round_number), outcome.weights, study, origin)
    publish(run, round_number, global_set, next(iter(scores.values())), signer)
    write_json(run.done(round_number), {"global_set": global_set.sha256, "round": round_number})
    return Conclusion(global_set, outcome)


def publish(
    run: RunDirectory,
    round_number: int,
    global_set: GlobalSet,
    scores: dict[str, dict[str, float]],
    signer: SigningKey,
) -> None:
    """Sign the digest of a global set and its scores: what a further round begins with."""
    result = result_of(
        global_set.shared,
        run.study(),
        run=run.description().run,
        round=round_number,
        scores=scores,
    )
    write_atomically(run.result(round_number), sign_result(result, signer))


def bench_of(
    study: Study, pictures: Mapping[str, Pictures], tests: Mapping[str, LabeledImages]
) -> Bench:
    """What candidates of this study are trained on and tested with; the seed is public."""
    return Bench(
        pictures=pictures,
        tests={n: normalise(images.images, study.image).numpy() for n, images in tests.items()},
        protocol=study.evaluation,
        network=study.network,
        image=study.image,
        classes=len(study.classes),
        seed=study.seed,
    )


def views_of(global_set: GlobalSet, study: Study) -> Pictures:
    """What networks train on: every part of every stored image, enlarged, with its labels."""
    arrays, partition = global_set.arrays(), study.distill.partition
    views = expand_partitions(torch.from_numpy(arrays.images), partition)
    labels = torch.from_numpy(arrays.labels.astype(np.int64))
    soft = None if arrays.soft is None else np.tile(arrays.soft, (partition * partition, 1))
    return Pictures(views.numpy(), expand_labels(labels, partition).numpy(), soft)


def held_out(images: LabeledImages, study: Study) -> TestSet:
    """What predictions for `images` are scored against."""
    return TestSet(images.labels.numpy(), images.groups, study.evaluation.resamples, study.seed)


def _scores(
    outcome: Outcome, name: str, images: LabeledImages, study: Study
) -> dict[str, dict[str, float]]:
    scored = resample(outcome.probabilities[name], held_out(images, study))
    return {metric: asdict(estimate) for metric, estimate in scored.estimates().items()}


def _on_card(scores: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    for name, metrics in scores.items():
        found = metrics["balanced_accuracy"]
        return f"{found['mean']:.3f} (95 % {found['low']:.3f} to {found['high']:.3f}, {name})"
    return "not measured"
