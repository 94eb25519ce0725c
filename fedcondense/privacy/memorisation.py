"""Memorisation: is the set closer to patients it was made from than to patients it never saw?

Real images of the same hospital that the method never saw (held out, whole groups) are what chance
looks like. Five questions, each by class, in pixels and in an embedding, of whole images, of tiles
and of quadrants:

- `nearest-in-train`: how many have their nearest real image among the training images, if groups
  were dealt to training and held-out by chance (exact, numbers of groups kept)?
- `closer-than-held-out`: how many of the closest, of synthetic images and of unseen patients'
  images together, are synthetic? An unseen patient's image is as close to training images as a
  synthetic one that memorised nobody may be.
- `stands-out`: the same, of those whose nearest training image stands out most from all others: a
  patient under noise is close to nobody, but closer to one than to the rest. Chance is here what
  lets it pass more easily of unseen patients, these under noise, and noise alone. It is asked of
  pixels, and of what a set shows as a whole patient.
- `closest`: is a single one closer than unseen patients' images ever are?
- `copy`: is one the same picture as a training image, whatever the sample says?

The levels of all questions sum to one per cent. A set that passes is not thereby free of patients:
this audit can refuse, never certify.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from fedcondense.data.dataset import LabeledImages
from fedcondense.learning.randomness import Seed
from fedcondense.privacy.closeness import Closeness, Hospital, compare
from fedcondense.privacy.findings import AuditResult, Finding, Verdict
from fedcondense.privacy.likeness import Space
from fedcondense.privacy.statistics import (
    Distribution,
    among_the_top,
    at_least,
    chance_of_reaching,
    chosen_weight,
    clopper_pearson,
    count_at_the_top,
    ranks_to_look_at,
    together,
)
from fedcondense.privacy.subject import Subject
from fedcondense.progress import Watch, silent

AUDIT = "memorisation"
LEVEL = 0.01  # of false refusals, over all questions of one audit
COPY = 0.98  # cosine of what is a patient's own; strangers do not come near it
LEAST_GROUPS = 2  # of a class, in training
SMALL_CLASS = 200  # training images; below it sets from noise were measured to leak


@dataclass(frozen=True)
class Question:
    """A figure with its probability, before it is known how many questions share the level."""

    statistic: str
    label: int | None
    space: str
    value: float
    interval: tuple[float, float] | None
    p: float
    n: int


@dataclass(frozen=True)
class Counted:
    """How many were seen, of how many, and how likely each number would be by chance."""

    seen: int
    of: int
    by_chance: Distribution


def memorisation_audit(subject: Subject, *, seed: Seed, watch: Watch = silent) -> AuditResult:
    """Hold a set against the images it was made from and those it never saw.

    Without two groups of training images and one held out of each class, it is not run.
    """
    began = time.monotonic()
    if why := _untestable(subject):
        return AuditResult.not_run(AUDIT, why)
    hospital = Hospital.of(subject.train, subject.held_out, subject.study.image, seed)
    partition = subject.study.distill.partition
    questions: list[Question] = []
    copies: list[Finding] = []
    for kind, space, found in compare(subject.arrays, hospital, partition=partition, watch=watch):
        questions += _questions(found, hospital, f"{space}/{kind}")
        if space is Space.PIXELS:
            copies.append(_copy(found, f"{space}/{kind}"))
        if found[0].veiled:
            questions += _outstanding(found, f"{space}/{kind}")
    findings = [*_judged(questions), *copies]
    note = _note(subject, len(questions))
    return AuditResult.of(AUDIT, findings, seconds=time.monotonic() - began, note=note)


def _untestable(subject: Subject) -> str:
    """Why the audit cannot be run, in words, or nothing."""
    train, held_out = subject.train, subject.held_out
    if crossing := len(set(train.groups) & set(held_out.groups)):
        return f"{crossing} held-out groups are training groups too"
    for label in np.unique(subject.arrays.labels).tolist():
        if len(_groups_of(train, label)) < LEAST_GROUPS:
            return f"{train.classes[label]}: fewer than {LEAST_GROUPS} training groups"
        if not _groups_of(held_out, label):
            return f"{train.classes[label]}: no held-out group"
    return ""


def _groups_of(images: LabeledImages, label: int) -> set[str]:
    rows = (images.labels == label).nonzero().flatten().tolist()
    return {images.groups[row] for row in rows}


def _questions(found: Sequence[Closeness], hospital: Hospital, space: str) -> Iterator[Question]:
    """The questions of each kind in each space: by class, then over all classes."""
    in_train = [_in_train(one, hospital) for one in found]
    closer = [_at_the_top(one.ours.cosine, one.unseen.cosine) for one in found]
    for label, which in _each_and_all(found):
        yield _share("nearest-in-train", in_train[which], label, space)
        yield _share("closer-than-held-out", closer[which], label, space)
    for one in found:
        yield _closest(one, space)


def _outstanding(found: Sequence[Closeness], space: str) -> Iterator[Question]:
    """Of all that could pass for chance, what makes the count least surprising."""
    counted = [
        [_at_the_top(one.ours.standing, null.standing) for null in (one.unseen, *one.veiled)]
        for one in found
    ]
    for label, which in _each_and_all(found):
        by_chance = zip(*counted[which], strict=True)
        asked = (_share("stands-out", chance, label, space) for chance in by_chance)
        yield max(asked, key=lambda question: question.p)


def _each_and_all(found: Sequence[Closeness]) -> Iterator[tuple[int | None, slice]]:
    """Each class with its place, then all of them where there are several."""
    for place, one in enumerate(found):
        yield one.label, slice(place, place + 1)
    if len(found) > 1:
        yield None, slice(None)


def _in_train(one: Closeness, hospital: Hospital) -> Counted:
    """Views next to a training image."""
    rows = hospital.of_class(one.label)
    groups, weights = np.unique(one.nearest, return_counts=True)
    is_trained = np.isin(groups, hospital.groups[hospital.trained])
    by_chance = chosen_weight(
        weights.tolist(),
        chosen=hospital.group_count(rows & hospital.trained),
        of=hospital.group_count(rows),
    )
    return Counted(int(weights[is_trained].sum()), len(one.nearest), by_chance)


def _at_the_top(ours: Float[np.ndarray, " m"], others: Float[np.ndarray, " u"]) -> Counted:
    """Synthetic units among the top ranks of synthetic and others."""
    top = ranks_to_look_at(len(ours) + len(others))
    by_chance = among_the_top(len(ours), len(others), top)
    return Counted(count_at_the_top(ours, others, top), top, by_chance)


def _share(statistic: str, counted: Sequence[Counted], label: int | None, space: str) -> Question:
    """A share over some classes, each by its own chance."""
    seen, of = sum(c.seen for c in counted), sum(c.of for c in counted)
    p = at_least(together([c.by_chance for c in counted]), seen)
    return Question(statistic, label, space, seen / of, clopper_pearson(seen, of), p, of)


def _closest(one: Closeness, space: str) -> Question:
    """The least likely of the class's units, times their number (Bonferroni)."""
    ours, unseen = one.ours.cosine, one.unseen.cosine
    p = min(1.0, len(ours) * float(chance_of_reaching(unseen, ours).min()))
    return Question("closest", one.label, space, float(ours.max()), None, p, len(ours))


def _copy(found: Sequence[Closeness], space: str) -> Finding:
    highest = max(float(one.ours.cosine.max()) for one in found)
    verdict = Verdict.REFUSED if highest >= COPY else Verdict.PASSED
    units = sum(len(one.ours.cosine) for one in found)
    return Finding("copy", None, space, highest, None, None, COPY, None, units, verdict)


def _judged(questions: Sequence[Question]) -> list[Finding]:
    """Findings at a level that all questions share (Bonferroni)."""
    level = LEVEL / len(questions)
    return [
        Finding(
            statistic=q.statistic,
            label=q.label,
            space=q.space,
            value=q.value,
            low=q.interval[0] if q.interval else None,
            high=q.interval[1] if q.interval else None,
            threshold=level,
            p=q.p,
            n=q.n,
            verdict=Verdict.REFUSED if q.p < level else Verdict.PASSED,
        )
        for q in questions
    ]


def _note(subject: Subject, questions: int) -> str:
    counts = subject.train.counts().tolist()
    present = np.unique(subject.arrays.labels).tolist()
    small = [subject.train.classes[label] for label in present if counts[label] < SMALL_CLASS]
    said = f"{questions} questions, together wrong in {LEVEL:.0%} of sets that memorised nobody"
    if not small:
        return said
    return f"{said}; fewer than {SMALL_CLASS} images: {', '.join(small)}: such classes leak more"
