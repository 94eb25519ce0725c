"""A scenario on one machine, from its images to its study report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from fedcondense.config.scenario import Scenario
from fedcondense.config.site import ImageFolder, ImageNpz
from fedcondense.config.study import Study
from fedcondense.data.dataset import LabeledImages
from fedcondense.data.loading import load_images
from fedcondense.data.partition import partition_sites
from fedcondense.data.problems import naming_files
from fedcondense.data.split import cut_validation, train_and_test
from fedcondense.errors import DataError
from fedcondense.learning.randomness import Seed
from fedcondense.progress import Watch, silent
from fedcondense.research.consistency import check_nearest
from fedcondense.research.evaluation_cache import EvaluationCache
from fedcondense.research.hospitals import build_consortium
from fedcondense.research.repetition import (
    Repetition,
    RepetitionRecord,
    play,
    processors,
    record_of,
)
from fedcondense.research.report_schema import StudyReport
from fedcondense.research.resamples import keep_resamples
from fedcondense.research.run_root import RunRoot
from fedcondense.research.scenario_report import (
    EXTERNAL,
    report_of,
    score_repetitions,
    set_pictures,
)
from fedcondense.research.study_report import write_study_report

VALIDATION_SHARE = 0.2


@dataclass(frozen=True)
class Images:
    """The images of a scenario: what is learned from, and the test sets by name."""

    train: LabeledImages
    tests: Mapping[str, LabeledImages]


def simulate(scenario: Scenario, out: Path, *, watch: Watch = silent) -> StudyReport:
    """Play the scenario in the directory `out` and write its report there.

    A run that was interrupted goes on: finished repetitions are not played again, finished sets
    not condensed again, finished networks not trained again.

    Raises:
        RunDirectoryError: `out` holds anything else.
        FedcondenseError: images, settings or federation are at fault; what is finished is kept.
    """
    root = RunRoot(out)
    with root.claim(scenario):
        return play_scenario(root, scenario, watch)


def play_scenario(root: RunRoot, scenario: Scenario, watch: Watch = silent) -> StudyReport:
    """Like `simulate`, in a directory that is claimed already."""
    images = read_images(scenario, watch=watch)
    studies = _studies(scenario, images.train)
    check_nearest(scenario.consistency, images.train.labels)
    records = [
        _played(root, scenario, images, index, study, watch) for index, study in enumerate(studies)
    ]
    scored = score_repetitions(root, images.tests, studies, records)
    keep_resamples(root.path, scored[scenario.read], images.tests[scenario.read])
    report = report_of(root, scenario, images.tests, studies, records, scored)
    write_study_report(root.path, report, set_pictures(root, studies[0], scenario.seeds[0]))
    root.finish()
    return report


def read_images(scenario: Scenario, *, watch: Watch = silent) -> Images:
    """Read the scenario's images and part them into training and test images, by group.

    With `read = "validation"` the test images are put aside unread, and a fifth of the training
    groups stands in for them.
    """
    assert scenario.images is not None, "load_scenario demands images"
    with naming_files():
        every = load_images(scenario.images, scenario.image, classes=scenario.classes, watch=watch)
    train, test = train_and_test(every)
    if scenario.read == "validation":
        train, test = cut_validation(train, VALIDATION_SHARE)
    for images, name in ((train, "training"), (test, scenario.read)):
        if len(images) == 0:
            raise DataError(
                f"the split leaves no {name} image",
                hint="give both train and test rows, or no split at all; see docs/ref-data.md",
            )
    tests: dict[str, LabeledImages] = {scenario.read: test}
    if scenario.external is not None:
        tests[EXTERNAL] = _read_external(scenario, train)
    return Images(train, tests)


def _read_external(scenario: Scenario, train: LabeledImages) -> LabeledImages:
    assert scenario.external is not None, "asked only where there is one"
    path = scenario.external.path
    source = (
        ImageNpz(kind="npz", path=path)
        if path.suffix == ".npz"
        else ImageFolder(kind="folder", path=path)
    )
    with naming_files():
        images = load_images(source, scenario.image, classes=train.classes)
    tested = scenario.external.classes or train.classes
    learned = set(train.groups)
    keep = [
        train.classes[label] in tested and group not in learned
        for label, group in zip(images.labels.tolist(), images.groups, strict=True)
    ]
    return images.select(_rows(keep))


def _rows(keep: list[bool]) -> torch.Tensor:
    return torch.tensor(keep, dtype=torch.bool).nonzero().squeeze(1)


def _studies(scenario: Scenario, train: LabeledImages) -> list[Study]:
    """The study of each seed; all are checked before the first is played."""
    return [
        scenario.study(train.classes, len(_dealt(scenario, train, seed)), seed)
        for seed in scenario.seeds
    ]


def _dealt(scenario: Scenario, train: LabeledImages, seed: int) -> dict[str, LabeledImages]:
    return partition_sites(train, scenario.partition, Seed(seed).stream("partition"))


def _played(
    root: RunRoot,
    scenario: Scenario,
    images: Images,
    index: int,
    study: Study,
    watch: Watch,
) -> RepetitionRecord:
    seed = scenario.seeds[index]
    folder = root.repetition(seed)
    record = record_of(folder)
    if record is not None:
        return record
    parts = _dealt(scenario, images.train, seed)
    consortium = build_consortium(folder, scenario, study, parts, experts=root.experts(seed))
    repetition = Repetition(
        index=index,
        seed=seed,
        study=study,
        consortium=consortium,
        parts=parts,
        tests=images.tests,
        draws=scenario.random_draws,
        evaluations=EvaluationCache(root.evaluations),
        device=device_name(scenario.device),
        gpus=_gpu_share(scenario, len(parts)),
        architectures=scenario.architectures,
        cross_networks=scenario.cross_networks,
        nearest=scenario.consistency,
    )
    return play(repetition, watch=watch)


def device_name(name: str) -> str:
    """As PyTorch names it; `auto` is the first CUDA device where there is one."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def _gpu_share(scenario: Scenario, sites: int) -> float:
    """Of one GPU, divided among the sites that condense at once."""
    if scenario.device == "cpu" or not torch.cuda.is_available():
        return 0.0
    return 1 / min(sites, processors())
