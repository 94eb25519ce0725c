"""Finished repetitions of a scenario → the study report and its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedcondense.config.scenario import ReleaseMode, Scenario
from fedcondense.config.study import Architecture, Study
from fedcondense.data.dataset import LabeledImages
from fedcondense.files.environment import this_environment
from fedcondense.files.galleries import SetPictures
from fedcondense.research.consistency import mean_consistency
from fedcondense.research.cross_architecture import cross_figures
from fedcondense.research.repetition import RepetitionRecord, predictions_of
from fedcondense.research.report_assembly import Circumstances, Pooled, assemble, study_facts
from fedcondense.research.report_schema import External, Release, Repetition, StudyReport
from fedcondense.research.run_root import RunRoot
from fedcondense.research.scoring import Scored, pool_repetitions, score
from fedcondense.server.aggregate import read_global_set
from fedcondense.server.conclude import held_out
from fedcondense.server.predictions import read_predictions
from fedcondense.server.report import round_figures
from fedcondense.server.report_figures import ScoredImages
from fedcondense.server.report_schema import Round
from fedcondense.server.run_directory import RunDirectory
from fedcondense.site.state import RoundState

EXTERNAL = "external"
SHORT_CUTS = (
    "In public collections of radiographs the place of origin is nearly the label: a classifier "
    "can use age or scanner as a short cut, and a high score says nothing about other patients."
)
UNSTABLE = (
    "The set was condensed with another network than a ConvNet, which is unstable (Zhao et al. "
    "2023, sec. 5.5): a low score may be the network's and not the method's."
)

ScoredRepetitions = Mapping[str, Mapping[int, Scored]]  # by test set, then by seed


def score_repetitions(
    root: RunRoot,
    tests: Mapping[str, LabeledImages],
    studies: Sequence[Study],
    records: Sequence[RepetitionRecord],
) -> ScoredRepetitions:
    """Every finished repetition scored on every test set; arguments in the order of the seeds."""
    return {
        test: {
            record.seed: _scored(root, record, study, test, images)
            for record, study in zip(records, studies, strict=True)
        }
        for test, images in tests.items()
    }


def report_of(
    root: RunRoot,
    scenario: Scenario,
    tests: Mapping[str, LabeledImages],
    studies: Sequence[Study],
    records: Sequence[RepetitionRecord],
    scored: ScoredRepetitions,
) -> StudyReport:
    """The report of all repetitions; `studies` and `records` are in the order of the seeds."""
    read = {test: scored_images(test, images) for test, images in tests.items()}
    repetitions = [
        _repetition(scenario, record, scored, read, rounds_of(root, study, record, scenario.read))
        for record, study in zip(records, studies, strict=True)
    ]
    together = {test: pool_repetitions(by_seed) for test, by_seed in scored.items()}
    purpose = "simulation" if scenario.release is ReleaseMode.STUDY_ONLY else "release"
    circumstances = Circumstances(
        study=study_facts(scenario, studies[0]),
        environment=this_environment(scenario.device, threads=1),
        release=Release(mode=scenario.release, purpose=purpose),
        test=read[scenario.read],
        notes=_notes(scenario),
    )
    main = together[scenario.read]
    consistency = [r.consistency for r in records if r.consistency is not None]
    pooled = Pooled(
        main.scores(),
        main.gains(),
        _external(together, read),
        cross_figures(main, studies[0].network.architecture),
        mean_consistency(consistency) if consistency else None,
    )
    return assemble(circumstances, repetitions, pooled)


def rounds_of(
    root: RunRoot, study: Study, record: RepetitionRecord, test: str
) -> tuple[Round, ...]:
    """The global set of every round with its scores on one test set, where there are several."""
    if study.rounds == 1:
        return ()
    run = RunDirectory(root.repetition(record.seed) / "server")
    one_bootstrap = study.model_copy(update={"seed": 0})  # as for all other scores of the report
    return tuple(
        round_figures(run, one_bootstrap, number, read_predictions(run.predictions(number))[test])
        for number in range(1, study.rounds + 1)
    )


def set_pictures(root: RunRoot, study: Study, seed: int) -> SetPictures:
    """The global set of one repetition, each image beside the pixels that it began with."""
    folder = root.repetition(seed)
    union = read_global_set(RunDirectory(folder / "server").global_set(study.rounds))
    starts = [
        RoundState(folder / "sites" / site, study.digest, study.rounds).synthetic()["started_from"]
        for site in dict.fromkeys(union.sites)
    ]
    return SetPictures(
        images=union.images,
        starts=np.concatenate(starts),
        labels=union.labels.astype(np.int64),
        sites=union.sites,
        classes=union.classes,
        lowest=study.image.lowest,
        highest=study.image.highest,
    )


def _scored(
    root: RunRoot, record: RepetitionRecord, study: Study, test: str, images: LabeledImages
) -> Scored:
    return score(
        predictions_of(root.repetition(record.seed), test),
        held_out(images, study.model_copy(update={"seed": 0})),  # one bootstrap for all seeds
        classes=study.classes,
        stored=record.stored,
        views=record.views,
    )


def _repetition(
    scenario: Scenario,
    record: RepetitionRecord,
    scored: Mapping[str, Mapping[int, Scored]],
    read: Mapping[str, ScoredImages],
    rounds: tuple[Round, ...],
) -> Repetition:
    own = {name: by_seed[record.seed] for name, by_seed in scored.items()}
    main = own[scenario.read]
    return Repetition(
        seed=record.seed,
        study_digest=record.study_digest,
        sites=record.sites,
        failed_sites=record.failed_sites,
        seconds=record.seconds,
        global_set=record.global_set,
        scores=main.scores(),
        gains=main.gains(),
        external=_external(own, read),
        cross_architecture=cross_figures(main, scenario.network.architecture),
        consistency=record.consistency,
        rounds=rounds,
    )


def _external(scored: Mapping[str, Scored], read: Mapping[str, ScoredImages]) -> External | None:
    if EXTERNAL not in scored:
        return None
    found = scored[EXTERNAL]
    return External(test=read[EXTERNAL], scores=found.scores(), gains=found.gains())


def scored_images(name: str, images: LabeledImages) -> ScoredImages:
    """What of the images that scores are read on is reported."""
    return ScoredImages(
        name=name,
        images=len(images),
        groups=len(set(images.groups)),
        class_counts=dict(zip(images.classes, images.counts().tolist(), strict=True)),
    )


def _notes(scenario: Scenario) -> tuple[str, ...]:
    """Warnings; colour images are no radiographs."""
    notes = []
    if scenario.images and scenario.images.kind != "phantoms" and scenario.image.channels == 1:
        notes.append(SHORT_CUTS)
    if scenario.network.architecture is not Architecture.CONVNET:
        notes.append(UNSTABLE)
    return tuple(notes)
