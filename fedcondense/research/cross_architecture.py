"""The same sets in the eyes of networks that did not condense them (Zhao et al. 2023, sec. 5.5).

A scenario gives one row of the papers' matrix: its set, condensed with its own network, tested with
each architecture that it names. What real images give with the same networks stands beside it.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import asdict, replace

from fedcondense.config.study import Architecture, Study
from fedcondense.files.figures import Difference, Estimate
from fedcondense.learning.evaluation import Candidate, Ingredient
from fedcondense.learning.scores import Resampled, difference
from fedcondense.research.comparators import (
    CEILING,
    CROSS,
    RANDOM,
    RANDOM_EXPANDED,
    Comparison,
)
from fedcondense.research.optional_schema import (
    ArchitectureScores,
    CrossArchitecture,
    NetworkScore,
)
from fedcondense.research.scoring import Scored, Sets
from fedcondense.server.aggregate import GlobalSet
from fedcondense.server.conclude import GLOBAL


def cross_candidates(
    study: Study,
    comparison: Comparison,
    global_set: GlobalSet,
    architectures: Sequence[Architecture],
    networks: int,
) -> list[Candidate]:
    """Every set as it is compared already, to be learned by each further architecture.

    `networks` of each set; of random real images that many draws. The architecture of the study
    is left out: it is what everything is scored with.
    """
    sets = _sets(study, comparison, global_set, networks)
    return [
        replace(
            candidate,
            name=f"{CROSS}/{architecture.value}/{candidate.name}",
            architecture=architecture,
        )
        for architecture in architectures
        if architecture is not study.network.architecture
        for candidate in sets
    ]


def _sets(
    study: Study, comparison: Comparison, global_set: GlobalSet, networks: int
) -> list[Candidate]:
    draws = {f"{name}/{draw}" for name in _random(study) for draw in range(networks)}
    return [
        Candidate(GLOBAL, (Ingredient("synthetic"),), networks, rate=global_set.student_rate),
        Candidate(CEILING, (Ingredient("train"),), networks),
        *(candidate for candidate in comparison.candidates if candidate.name in draws),
    ]


def _random(study: Study) -> tuple[str, ...]:
    """With one view to a stored image, expanding changes nothing."""
    return (RANDOM, RANDOM_EXPANDED) if study.distill.partition > 1 else (RANDOM,)


def cross_figures(scored: Scored, own: Architecture) -> CrossArchitecture | None:
    """The scores with their intervals, those of the network condensed with, `own`, first.

    None where no other architecture was asked for.
    """
    if not scored.crossed:
        return None
    compared = next(iter(scored.crossed.values()))
    sets = {own.value: {name: scored.sets[name] for name in compared}, **scored.crossed}
    return CrossArchitecture(
        condensed_with=own.value,
        tested_with={name.value: _figures(sets[name.value]) for name in _ordered(own, sets)},
    )


def _ordered(own: Architecture, asked: Container[str]) -> list[Architecture]:
    return [own, *(name for name in Architecture if name.value in asked and name is not own)]


def _figures(sets: Sets) -> ArchitectureScores:
    gap = difference(sets[GLOBAL], sets[RANDOM])
    return ArchitectureScores(
        sets={name: _score(scored) for name, scored in sets.items()},
        global_minus_random_real=Difference(**asdict(gap)),
    )


def _score(scored: Resampled) -> NetworkScore:
    estimates = scored.estimates()
    return NetworkScore(
        balanced_accuracy=Estimate(**asdict(estimates["balanced_accuracy"])),
        accuracy=Estimate(**asdict(estimates["accuracy"])),
        networks=scored.values.shape[1],
    )
