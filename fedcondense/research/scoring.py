"""Predictions → the scores and gains of a report, of one repetition or of several together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from fedcondense.files.figures import Difference
from fedcondense.learning.scores import Resampled, TestSet, average, difference, pool, resample
from fedcondense.research.comparators import ALONE, CEILING, CROSS, JOINED, RANDOM, RANDOM_EXPANDED
from fedcondense.research.report_schema import Gains, Joining, Scores, SiteScores
from fedcondense.server.conclude import GLOBAL
from fedcondense.server.report_figures import (
    SetScores,
    measures_of,
)

SETS = (GLOBAL, CEILING, RANDOM, RANDOM_EXPANDED)

Predictions = Mapping[str, np.ndarray]
Sets = Mapping[str, Resampled]  # by name


@dataclass(frozen=True)
class Scored:
    """Everything that was scored on one test set, before any interval is taken.

    `sets` by candidate name; `alone` and `joined` by site; `crossed` by architecture where others
    than the study's were asked for; `stored` and `views` say how many images a candidate stores,
    and how many views of them a network sees.
    """

    classes: tuple[str, ...]
    sets: dict[str, Resampled]
    alone: dict[str, Resampled]
    joined: dict[str, Resampled]
    mean_alone: Resampled
    mean_joined: Resampled
    stored: Mapping[str, int | float]
    views: Mapping[str, int | float]
    crossed: Mapping[str, Sets] = field(default_factory=dict)

    def scores(self) -> Scores:
        """The scores with their intervals."""
        return Scores(
            global_set=self._of_set(GLOBAL, self.sets[GLOBAL]),
            ceiling=self._of_set(CEILING, self.sets[CEILING]),
            random_real=self._of_set(RANDOM, self.sets[RANDOM]),
            random_real_expanded=self._of_set(RANDOM_EXPANDED, self.sets[RANDOM_EXPANDED]),
            site_alone=self._of_sites(ALONE, self.alone, self.mean_alone),
            site_joined=self._of_sites(JOINED, self.joined, self.mean_joined),
        )

    def gains(self) -> Gains:
        """The paired differences that the study is about, in balanced accuracy."""
        sites = {name: _gap(self.joined[name], self.alone[name]) for name in self.alone}
        of_sets = self.sets
        return Gains(
            joining=Joining(sites=sites, mean=_gap(self.mean_joined, self.mean_alone)),
            global_minus_random_real=_gap(of_sets[GLOBAL], of_sets[RANDOM]),
            global_minus_random_real_expanded=_gap(of_sets[GLOBAL], of_sets[RANDOM_EXPANDED]),
        )

    def _of_set(self, name: str, scored: Resampled) -> SetScores:
        measures = measures_of(scored, self.classes).model_dump()
        return SetScores(**measures, images=self.stored[name], views=self.views[name])

    def _of_sites(self, kind: str, sites: Mapping[str, Resampled], mean: Resampled) -> SiteScores:
        each = {name: self._of_set(f"{kind}/{name}", scored) for name, scored in sites.items()}
        return SiteScores(sites=each, mean=measures_of(mean, self.classes))


def score(
    predictions: Predictions,
    test: TestSet,
    *,
    classes: tuple[str, ...],
    stored: Mapping[str, int | float],
    views: Mapping[str, int | float],
) -> Scored:
    """Score the predictions (networks, N, K) of every candidate of one repetition.

    The draws of random real images, `random_real/0` and so on, are scored as one set.
    """
    sets = {name: resample(_stacked(predictions, name), test) for name in SETS}
    alone, joined = (_by_site(predictions, kind, test) for kind in (ALONE, JOINED))
    return Scored(
        classes=classes,
        sets=sets,
        alone=alone,
        joined=joined,
        mean_alone=average(list(alone.values())),
        mean_joined=average(list(joined.values())),
        stored=stored,
        views=views,
        crossed=_crossed(predictions, test),
    )


def pool_repetitions(repetitions: Mapping[int, Scored]) -> Scored:
    """Several repetitions, by partition seed, as one: all their networks on the same resamples.

    Sites are other hospitals in every repetition, so they are named `<site>, seed <seed>`.
    """
    parts = list(repetitions.values())
    return Scored(
        classes=parts[0].classes,
        sets={name: pool([part.sets[name] for part in parts]) for name in SETS},
        alone=_renamed(repetitions, lambda part: part.alone),
        joined=_renamed(repetitions, lambda part: part.joined),
        mean_alone=pool([part.mean_alone for part in parts]),
        mean_joined=pool([part.mean_joined for part in parts]),
        stored=_means(repetitions, lambda part: part.stored),
        views=_means(repetitions, lambda part: part.views),
        crossed={
            architecture: {n: pool([part.crossed[architecture][n] for part in parts]) for n in sets}
            for architecture, sets in parts[0].crossed.items()
        },
    )


def _stacked(predictions: Predictions, name: str) -> np.ndarray:
    parts = [p for key, p in predictions.items() if key == name or key.startswith(f"{name}/")]
    return np.concatenate(parts)


def _by_site(predictions: Predictions, kind: str, test: TestSet) -> dict[str, Resampled]:
    prefix = f"{kind}/"
    return {
        key.removeprefix(prefix): resample(p, test)
        for key, p in predictions.items()
        if key.startswith(prefix)
    }


def _crossed(predictions: Predictions, test: TestSet) -> dict[str, dict[str, Resampled]]:
    """`cross/<architecture>/<set>`, or `.../<set>/<draw>`, by architecture and set."""
    names = dict.fromkeys(
        tuple(key.split("/")[1:3]) for key in predictions if key.startswith(f"{CROSS}/")
    )
    found: dict[str, dict[str, Resampled]] = {architecture: {} for architecture, _ in names}
    for architecture, name in names:
        networks = _stacked(predictions, f"{CROSS}/{architecture}/{name}")
        found[architecture][name] = resample(networks, test)
    return found


def _renamed(
    repetitions: Mapping[int, Scored], pick: Callable[[Scored], Mapping[str, Resampled]]
) -> dict[str, Resampled]:
    return {
        f"{name}, seed {seed}": scored
        for seed, part in repetitions.items()
        for name, scored in pick(part).items()
    }


def _means(
    repetitions: Mapping[int, Scored], pick: Callable[[Scored], Mapping[str, int | float]]
) -> dict[str, int | float]:
    """Numbers of images: of sets the mean over repetitions, of sites their own."""
    found: dict[str, int | float] = {
        name: float(np.mean([pick(part)[name] for part in repetitions.values()])) for name in SETS
    }
    for seed, part in repetitions.items():
        found |= {f"{n}, seed {seed}": v for n, v in pick(part).items() if n not in SETS}
    return found


def _gap(one: Resampled, other: Resampled) -> Difference:
    return Difference(**asdict(difference(one, other)))
