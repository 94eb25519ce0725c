"""The audits of preset `full`, on the real path: shadows are condensed as the set was."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from hospital_kit import Hospital, films, tiny_study

from fedcondense.config.loading import parse_settings
from fedcondense.config.study import Study
from fedcondense.errors import ReleaseRefused
from fedcondense.privacy import audit, membership, shadows
from fedcondense.privacy.findings import AuditResult, Verdict
from fedcondense.site import contribute, sources

PATIENTS = 60  # of each class
FULL = {"audits": "full"}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memorisation is no question here; shadows train and resample as little as can be."""
    passed = AuditResult("memorisation", Verdict.PASSED, (), seconds=0.0, note="")
    monkeypatch.setattr(audit, "memorisation_audit", lambda *args, **options: passed)
    monkeypatch.setattr(shadows, "MODEL_STEPS", 1)
    monkeypatch.setattr(shadows, "MODELS", 1)
    monkeypatch.setattr(membership, "LEAST_SHADOWS", 4)
    few = functools.partial(membership.membership_audit, shadows=4)
    monkeypatch.setattr(audit, "membership_audit", few)
    monkeypatch.setattr(membership, "RESAMPLES", 20)


def private_study(unit: str, epsilon: float = 60.0) -> Study:
    values = tiny_study().model_dump(mode="json", exclude_none=True)
    privacy = {"mode": "dp-embed", "epsilon": epsilon, "maps": 2, "unit": unit}
    distill = {"method": "dm", "iterations": 1}
    return parse_settings(Study, values | {"privacy": privacy, "distill": distill}, "tiny")


def experts_study() -> Study:
    values = tiny_study().model_dump(mode="json", exclude_none=True)
    distill = {
        "method": "pruned-mtt",
        "iterations": 1,
        "student_steps": 1,
        "synthetic_batch": 3,
        "expert_epochs": 1,
        "max_start": 2,
        "experts": {"count": 1, "epochs": 2, "batch": 30, "rate": 0.1},
    }
    privacy = {"mode": "dp-sgd", "epsilon": 60.0}
    return parse_settings(Study, values | {"privacy": privacy, "distill": distill}, "tiny")


def hospital_for(folder: Path, study: Study, *, least: int = 40, **release: Any) -> Hospital:
    settings: dict[str, Any] = {}
    if study.privacy.mode != "none":
        declared = {"images": 3 * PATIENTS, "patients": 3 * PATIENTS}
        budget = {"epsilon": 100.0, "unit": study.privacy.unit.value}
        settings = {"ledger": budget, "declared": declared}
    each = 12 if study.privacy.mode == "none" else PATIENTS
    arrays = films((each,) * 3)
    return Hospital(
        folder, study, arrays, least=least, held_out=0.2, release=release, settings=settings
    )


def found_of(hospital: Hospital) -> AuditResult:
    audits = hospital.state.audits(hospital.state.record()["payload_sha256"])
    assert audits is not None
    return next(result for result in audits.results if result.audit == "membership")


@pytest.mark.parametrize("unit", [pytest.param("image", marks=pytest.mark.slow), "patient"])
def test_full_audits_of_class_embeddings_are_run_for_either_unit(tmp_path, unit):
    # of 60 patients about 48 are learned from; half of all, 30, would be below the site's 40
    hospital = hospital_for(tmp_path, private_study(unit), **FULL)

    hospital.contribute()

    assert found_of(hospital).verdict is Verdict.PASSED
    assert hospital.state.record()["audits"]["membership"] == "passed"


@pytest.mark.slow
def test_full_audits_of_private_experts_are_run(tmp_path):
    hospital = hospital_for(tmp_path, experts_study(), least=2, **FULL)

    hospital.contribute()

    assert found_of(hospital).verdict is Verdict.PASSED


@pytest.mark.slow
def test_shadows_of_private_experts_have_half_the_units_and_the_same_noise(tmp_path, monkeypatch):
    trained, train = [], sources.train_private_experts
    monkeypatch.setattr(
        sources,
        "train_private_experts",
        lambda *args, **options: trained.append(args[3]) or train(*args, **options),
    )
    hospital_for(tmp_path, experts_study(), least=2, **FULL).contribute()

    released, *of_shadows = trained
    assert {training.declared for training in of_shadows} == {released.declared // 2}
    assert {training.charged.sigma for training in of_shadows} == {released.charged.sigma}
    assert {training.labels for training in of_shadows} == {released.labels}
    # as many units in a batch, as strong against the noise
    assert all(
        training.charged.q * training.declared == released.charged.q * released.declared
        for training in of_shadows
    )


@pytest.mark.slow
def test_shadows_that_lose_a_class_in_the_noise_are_no_verdict(tmp_path, monkeypatch):
    hospital = hospital_for(tmp_path, private_study("image"), **FULL)
    release = sources.release_class_embeddings

    def lossy(*args: Any, least: int, **options: Any) -> Any:
        return release(*args, least=least if least > 1 else 10_000, **options)

    monkeypatch.setattr(sources, "release_class_embeddings", lossy)

    with pytest.raises(ReleaseRefused, match="audit-missing"):
        hospital.contribute()

    assert found_of(hospital).verdict is Verdict.NOT_RUN
    assert found_of(hospital).note.startswith("half of the images: no class has 10000 images")


def test_asking_for_more_audits_after_a_preview_runs_them_on_the_same_set(tmp_path):
    hospital = hospital_for(tmp_path, tiny_study(), least=2)
    first = contribute.preview(hospital.site, hospital.study, round=1)

    hospital.release |= FULL
    opened = hospital.open(hospital.contribute())

    assert opened.payload.sha256 == first.payload.sha256
    assert opened.record["audits"]["membership"] == "passed"


def test_a_set_that_was_not_audited_is_not_burnt(tmp_path, monkeypatch):
    hospital = hospital_for(tmp_path, tiny_study(), least=2, **FULL)
    with monkeypatch.context() as patch:
        patch.setattr(contribute, "redistill_for", lambda *args: None)
        with pytest.raises(ReleaseRefused, match="audit-missing"):
            hospital.contribute()
    assert hospital.state.refusals() == ()

    hospital.release = {"audits": "quick"}
    opened = hospital.open(hospital.contribute())

    assert opened.record["attempts"] == 1


def test_a_set_that_cannot_be_audited_makes_room_for_another(tmp_path, monkeypatch):
    hospital = hospital_for(tmp_path, tiny_study(), least=2, **FULL)
    with monkeypatch.context() as patch:
        patch.setattr(contribute, "redistill_for", lambda *args: None)
        with pytest.raises(ReleaseRefused, match="audit-missing"):
            hospital.contribute()

    contribute.preview(hospital.site, hospital.study, round=1)

    assert hospital.state.attempt == 2


def test_how_long_the_full_audits_take_is_said_before_they_begin(tmp_path):
    stages: list[str] = []
    hospital = hospital_for(tmp_path, tiny_study(), least=2, **FULL)

    hospital.contribute(watch=lambda step: stages.append(step.stage))

    [said] = [place for place, stage in enumerate(stages) if "membership takes about" in stage]
    assert said < stages.index("condensing shadows")


def test_audits_that_are_asked_for_later_are_of_the_images_that_were_condensed(tmp_path):
    hospital = hospital_for(tmp_path, tiny_study(), least=2)
    contribute.preview(hospital.site, hospital.study, round=1)

    hospital.release |= FULL
    hospital.held_out = 0.3
    with pytest.raises(ReleaseRefused, match="audit-missing"):
        hospital.contribute()

    assert found_of(hospital).note == contribute.OTHER_IMAGES
