"""Membership: can an attacker tell whose images were condensed? Preset `full`.

Each shadow of the pipeline is attacked with the others as reference. What is found is about the
pipeline at this site, with somewhat fewer images than the set that would leave was made of; that
set itself is attacked by distance, training images against held-out ones.

It refuses where the lower limit of a 95 % interval is above a bound: AUC above .55, or the share
of members that are named at 1 % false alarms above five times chance. An AUC hides the leak of a
few: hence the second.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int64

from fedcondense.data.dataset import LabeledImages
from fedcondense.learning.metrics import resampling_weights
from fedcondense.learning.randomness import Seed
from fedcondense.privacy.attack_scores import Members, lira, logit_margin, rmia
from fedcondense.privacy.findings import AuditResult, Finding, Verdict
from fedcondense.privacy.shadows import (
    Redistill,
    Shadows,
    condense_shadows,
    halves,
    joined,
    nearness,
)
from fedcondense.privacy.statistics import (
    area_under_curve,
    clopper_pearson,
    detected_at,
    group_numbers,
    most_explained,
)
from fedcondense.privacy.subject import Subject
from fedcondense.progress import Watch, silent

AUDIT = "membership"
SHADOWS, LEAST_SHADOWS = 16, 8
LARGEST_AREA = 0.55  # that the lower limit of an AUC may reach
LARGEST_GAIN = 5  # times chance, that the lower limit of the named share may reach
FALSE_ALARMS = 0.01
RARE_ALARMS, ENOUGH_FOR_RARE = 0.001, 3_000  # non-members that such a rare alarm needs
RESAMPLES = 500
ATTACKING = 0.1  # of a condensation's time, that looking at its set takes


def estimate_seconds(condense_seconds: float, shadows: int = SHADOWS) -> float:
    """How long the audit will take, from how long condensing took."""
    return condense_seconds * shadows * (1 + ATTACKING)


def announced(seconds: float) -> str:
    """The estimate in words, for whoever waits.

    >>> announced(5400.0)
    'attacking membership takes about 90 minutes'
    """
    if seconds < 90:
        return f"attacking membership takes about {max(1, round(seconds))} seconds"
    if seconds < 7200:
        return f"attacking membership takes about {round(seconds / 60)} minutes"
    return f"attacking membership takes about {round(seconds / 3600)} hours"


def membership_audit(
    subject: Subject,
    *,
    redistill: Redistill,
    seed: Seed,
    watch: Watch = silent,
    shadows: int = SHADOWS,
) -> AuditResult:
    """Attack shadows of the pipeline, and the set itself by distance.

    `redistill` condenses some of the site's images as the set was condensed, with another seed.

    Raises:
        ValueError: `shadows` is odd or below `LEAST_SHADOWS`.
    """
    if shadows < LEAST_SHADOWS or shadows % 2:
        raise ValueError(f"{shadows} shadows: an even number from {LEAST_SHADOWS} on is needed")
    began = time.monotonic()
    images = joined(subject.train, subject.held_out)
    members = halves(images, shadows, seed.stream("halves"))
    shown = condense_shadows(images, members, subject.study, redistill, seed=seed, watch=watch)
    findings = [*_judge_shadows(shown, images.groups), *_judge_released(subject, images)]
    note = _note(shadows, others=int((~members).sum(axis=1).min()))
    return AuditResult.of(AUDIT, findings, seconds=time.monotonic() - began, note=note)


def judge(
    attack: str, scores: Float[np.ndarray, "k n"], members: Members, groups: Sequence[str]
) -> Iterator[Finding]:
    """AUC and detected shares of one attack on all shadows; intervals resample groups."""
    yield _area(attack, scores, members, groups)
    others = int((~members).sum(axis=1).min())
    yield _detected(attack, scores, members, groups, FALSE_ALARMS)
    if others >= ENOUGH_FOR_RARE:
        yield _detected(attack, scores, members, groups, RARE_ALARMS)


def _area(
    attack: str, scores: Float[np.ndarray, "k n"], members: Members, groups: Sequence[str]
) -> Finding:
    weights = resampling_weights(groups, RESAMPLES, 0)
    areas = np.mean(
        [area_under_curve(s, m, weights) for s, m in zip(scores, members, strict=True)], axis=0
    )
    low, high = np.percentile(areas[1:], [2.5, 97.5])
    return _finding("auc", attack, float(areas[0]), (float(low), float(high)), LARGEST_AREA, groups)


def _detected(
    attack: str,
    scores: Float[np.ndarray, "k n"],
    members: Members,
    groups: Sequence[str],
    false_alarms: float,
) -> Finding:
    """The share of members that is named, each group counting once over all shadows.

    With few non-members chance names more than `false_alarms`: one in their number.
    """
    found = np.stack(
        [detected_at(s, m, false_alarms) for s, m in zip(scores, members, strict=True)]
    )
    share, trials = _share_of_groups(found, members, group_numbers(groups))
    others = int((~members).sum(axis=1).min())
    limit = LARGEST_GAIN * max(false_alarms, 1 / (others + 1))
    interval = clopper_pearson(share * trials, trials)
    return _finding(f"tpr-at-{false_alarms:.1%}", attack, share, interval, limit, groups)


def _share_of_groups(
    found: Members, members: Members, groups: Int64[np.ndarray, " n"]
) -> tuple[float, int]:
    named = np.bincount(groups, weights=found.sum(axis=0))
    times = np.bincount(groups, weights=members.sum(axis=0))
    shares = named[times > 0] / times[times > 0]
    return float(shares.mean()), len(shares)


def _finding(
    statistic: str,
    attack: str,
    value: float,
    interval: tuple[float, float],
    threshold: float,
    groups: Sequence[str],
) -> Finding:
    return Finding(
        statistic=statistic,
        label=None,
        space=attack,
        value=value,
        low=interval[0],
        high=interval[1],
        threshold=threshold,
        p=None,
        n=len(set(groups)),
        verdict=Verdict.REFUSED if interval[0] > threshold else Verdict.PASSED,
    )


def _judge_shadows(shown: Shadows, groups: Sequence[str]) -> Iterator[Finding]:
    members, near = shown.members, shown.nearness
    margin = logit_margin(shown.probability)
    yield from judge("distance", near, members, groups)
    yield from judge("distance-lira", lira(near, members), members, groups)
    yield from judge("margin", margin, members, groups)
    yield from judge("margin-lira", lira(margin, members), members, groups)
    yield from judge("rmia", rmia(shown.probability, members), members, groups)


def _judge_released(subject: Subject, images: LabeledImages) -> Iterator[Finding]:
    """The set that would leave: training images against held-out ones."""
    members = (np.arange(len(images)) < len(subject.train))[None]
    near = nearness(subject.arrays, images, subject.study)[None]
    yield from judge("distance-released", near, members, images.groups)


def _note(shadows: int, *, others: int) -> str:
    said = f"{shadows} shadow sets of half the site's groups each, {others} non-members or more"
    if others >= ENOUGH_FOR_RARE:
        return said
    floor = most_explained(0, others)
    return f"{said}; that many say nothing of false alarms rarer than {floor:.1%}"
