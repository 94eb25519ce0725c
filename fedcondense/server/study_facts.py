"""What all sites of a study agreed on, in a reader's words, for the head of every report."""

from __future__ import annotations

from fedcondense.config.cell_names import private_suffix
from fedcondense.config.study import Study
from fedcondense.server.report_figures import network_text, privacy_facts
from fedcondense.server.report_schema import EvaluationFacts, StudyFacts


def study_facts(study: Study) -> StudyFacts:
    """The facts of one study."""
    method, evaluation = study.distill, study.evaluation
    return StudyFacts(
        name=study.name,
        method=method.method + private_suffix(study.privacy.mode),
        preset=method.preset,
        start=method.start.value,
        images_per_class=study.images_per_class,
        partition=method.partition,
        iterations=method.iterations,
        image_size=study.image.size,
        channels=study.image.channels,
        network=network_text(study.network),
        privacy=privacy_facts(study.privacy),
        evaluation=EvaluationFacts(
            networks=evaluation.networks,
            length=evaluation.length,
            steps=evaluation.steps if evaluation.length == "short" else None,
            batch=evaluation.batch,
            resamples=evaluation.resamples,
        ),
        classes=study.classes,
        quorum=study.quorum,
        rounds=study.rounds,
        digest=study.digest,
    )
