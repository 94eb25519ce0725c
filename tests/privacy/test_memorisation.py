from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from audit_kit import (
    CLASSES,
    PARTITIONED,
    STUDY,
    Population,
    decoded,
    mixed,
    noise_set,
    shown,
    subject,
)
from phantom_sets_kit import Made, many_phantoms, twenty

from fedcondense.config.study import Study
from fedcondense.data.dataset import LabeledImages
from fedcondense.exchange.contribution import SyntheticArrays
from fedcondense.learning.partition import compose_partitions
from fedcondense.learning.pixels import normalise
from fedcondense.learning.randomness import Seed
from fedcondense.privacy.findings import AuditResult, Finding, Verdict
from fedcondense.privacy.memorisation import COPY, LEVEL, memorisation_audit

POPULATION = Population(3)
TRAIN, HELD_OUT = POPULATION.admit(32), POPULATION.admit(8)
STRANGERS = POPULATION.admit(6, films=(1,))
PIXELS = normalise(TRAIN.images, STUDY.image)


def audit(arrays: SyntheticArrays, *, study: Study = STUDY) -> AuditResult:
    return memorisation_audit(subject(arrays, TRAIN, HELD_OUT, study), seed=Seed(0))


def refusing(result: AuditResult) -> set[tuple[str, str]]:
    return {(finding.statistic, finding.space) for finding in result.refusing}


def least(result: AuditResult, statistic: str) -> Finding:
    return min((f for f in result.findings if f.statistic == statistic), key=lambda f: f.p)


@pytest.fixture(scope="module")
def of_strangers() -> AuditResult:
    return audit(shown(STRANGERS))


def test_a_set_of_unseen_patients_passes(of_strangers):
    assert of_strangers.verdict is Verdict.PASSED
    assert of_strangers.audit == "memorisation"


def test_every_question_is_asked_by_class_and_over_all(of_strangers):
    asked = {(f.statistic, f.space) for f in of_strangers.findings if f.label is None}
    by_class = {(f.statistic, f.space) for f in of_strangers.findings if f.label == 1}

    places = {f"{s}/{k}" for s in ("pixels", "embedding") for k in ("whole", "tiles", "quadrants")}
    everywhere = {(s, p) for s in ("nearest-in-train", "closer-than-held-out") for p in places}
    outstanding = {("stands-out", "pixels/whole")}
    assert asked == everywhere | outstanding | {("copy", p) for p in places if p[0] == "p"}
    assert by_class == everywhere | outstanding | {("closest", p) for p in places}


def test_all_questions_share_one_level(of_strangers):
    asked = [finding for finding in of_strangers.findings if finding.p is not None]

    assert {finding.threshold for finding in asked} == {LEVEL / len(asked)}
    assert of_strangers.note.startswith(f"{len(asked)} questions, together wrong in 1% of sets")


def test_small_classes_are_named_in_the_note(of_strangers):
    assert of_strangers.note.endswith("fewer than 200 images: a, b: such classes leak more")


def test_one_training_image_among_noise_is_a_copy():
    arrays = noise_set(5, 0)
    arrays.images[7] = shown(TRAIN).images[60]

    result = audit(arrays)

    assert result.verdict is Verdict.REFUSED
    assert refusing(result) == {("copy", "pixels/whole"), ("copy", "pixels/quadrants")}


def test_a_quadrant_of_a_training_image_is_a_copy():
    arrays = noise_set(5, 0)
    arrays.images[2, :, :8, 8:] = shown(TRAIN).images[10, :, :8, 8:]

    found = refusing(audit(arrays))

    assert ("copy", "pixels/quadrants") in found
    assert ("copy", "pixels/whole") not in found


@pytest.mark.parametrize("study", [STUDY, PARTITIONED], ids=["whole", "partitioned"])
def test_a_small_training_image_in_a_quarter_is_a_copy(study):
    arrays = noise_set(5, 0, study)
    arrays.images[2, :, 8:, 8:] = compose_partitions(PIXELS[:4], 2)[0, :, 8:, 8:].numpy()

    assert ("copy", "pixels/tiles") in refusing(audit(arrays, study=study))


def test_a_set_that_keeps_patients_under_noise_is_refused_by_who_stands_out():
    result = audit(mixed(TRAIN, of=1, count=10, noise=0.4))

    assert ("stands-out", "pixels/whole") in refusing(result)
    assert max(f.value for f in result.findings if f.statistic == "copy") < COPY


def test_a_memorising_distiller_is_caught():
    """Each image is half the mean of three patients and half noise."""
    result = audit(mixed(TRAIN, of=3, count=20, noise=0.5))

    assert result.verdict is Verdict.REFUSED


def test_what_one_finding_says(of_strangers):
    finding = next(f for f in of_strangers.findings if f.statistic == "nearest-in-train")

    assert finding.value == finding.n * finding.value / 6
    assert finding.n == 6
    assert finding.low <= finding.value <= finding.high


def test_the_same_seed_gives_the_same_findings(of_strangers):
    assert audit(shown(STRANGERS)).findings == of_strangers.findings


def test_it_reports_how_far_it_is():
    steps = []

    memorisation_audit(subject(noise_set(2, 0), TRAIN, HELD_OUT), seed=Seed(0), watch=steps.append)

    assert [step.done for step in steps] == list(range(1, 13))
    assert {(step.stage, step.total) for step in steps} == {("auditing memorisation", 12)}


def without(images: LabeledImages, label: int) -> LabeledImages:
    return images.select((images.labels != label).nonzero().flatten())


NOT_RUN = {
    "b: no held-out group": (TRAIN, without(HELD_OUT, 1)),
    "a: fewer than 2 training groups": (without(TRAIN, 0), HELD_OUT),
    "2 held-out groups are training groups too": (TRAIN, TRAIN.select(torch.tensor([0, 63]))),
}


@pytest.mark.parametrize("why", NOT_RUN)
def test_without_groups_to_compare_it_is_not_run(why):
    train, held_out = NOT_RUN[why]

    result = memorisation_audit(subject(noise_set(2, 0), train, held_out), seed=Seed(0))

    assert (result.verdict, result.findings, result.note) == (Verdict.NOT_RUN, (), why)


def test_a_class_that_is_not_in_the_set_needs_no_held_out_patient():
    arrays = noise_set(2, 0)
    of_one = replace(arrays, images=arrays.images[:2], labels=arrays.labels[:2])

    result = memorisation_audit(subject(of_one, TRAIN, without(HELD_OUT, 1)), seed=Seed(0))

    assert result.verdict is Verdict.PASSED
    assert {f.label for f in result.findings if f.statistic != "copy"} == {0}


def chance_set(seed: int, *, partition: int) -> AuditResult:
    """Nothing but images of patients whom nobody saw: an exact null."""
    population = Population(1_000 + seed)
    train, held_out = population.admit(20), population.admit(5)
    study = STUDY if partition == 1 else PARTITIONED
    strangers = population.admit(6 * partition**2, films=(1,))
    pixels = normalise(strangers.images, study.image)
    of_classes = [pixels[strangers.labels == label] for label in range(len(CLASSES))]
    stored = torch.cat([compose_partitions(images, partition) for images in of_classes])
    labels = torch.arange(len(CLASSES)).repeat_interleave(6)
    arrays = decoded(stored, labels, study)
    return memorisation_audit(subject(arrays, train, held_out, study), seed=Seed(seed))


@pytest.mark.slow
def test_of_sets_that_memorised_nobody_one_in_a_hundred_is_refused_at_most():
    """80 sets of unseen patients. At a true rate of 1 %, four or more have probability .01."""
    results = [chance_set(seed, partition=1 + seed % 2) for seed in range(80)]

    assert sum(result.verdict is Verdict.REFUSED for result in results) < 4
    for statistic in ("nearest-in-train", "closer-than-held-out", "stands-out", "closest"):
        p = np.array([f.p for r in results for f in r.findings if f.statistic == statistic])
        assert (p < 0.01).mean() < 0.015, statistic


# The real distillers on phantoms, small and short.


@pytest.fixture(scope="module")
def phantoms() -> LabeledImages:
    return many_phantoms()


def judged(made: Made) -> AuditResult:
    """Audit the set as if its start were unknown."""
    return memorisation_audit(
        subject(made.arrays, made.train, made.held_out, made.study), seed=made.seed
    )


@pytest.mark.slow
def test_of_twenty_sets_from_real_images_nineteen_are_refused_whatever_they_say(phantoms):
    results = [judged(made) for made in twenty(phantoms, "real")]

    assert sum(result.verdict is Verdict.REFUSED for result in results) >= 19


@pytest.mark.slow
def test_of_twenty_sets_from_noise_one_is_refused_at_most(phantoms):
    results = [judged(made) for made in twenty(phantoms, "noise")]

    assert sum(result.verdict is Verdict.REFUSED for result in results) <= 1
    assert all(least(result, "stands-out").p > 1e-3 for result in results)
