from __future__ import annotations

import json
from dataclasses import replace

import pytest
from audit_kit import STUDY, Population, noise_set, shown

from fedcondense.config.site import ReleasePolicy
from fedcondense.files.storage import canonical_json, read_json, write_json
from fedcondense.learning.randomness import Seed
from fedcondense.privacy import audit, shadows
from fedcondense.privacy.audit import AuditResult, Audits, Finding, Verdict, run_audits

POPULATION = Population(5)
TRAIN, HELD_OUT = POPULATION.admit(12), POPULATION.admit(3)
ARRAYS = noise_set(2, 0)
QUICK, FULL = ReleasePolicy(), ReleasePolicy(audits="full")


def run(policy: ReleasePolicy, arrays=ARRAYS, **given) -> Audits:
    given = {"redistill": None, "seed": Seed(0)} | given
    return run_audits(
        arrays,
        payload_sha256="0" * 64,
        study=STUDY,
        train=TRAIN,
        held_out=HELD_OUT,
        policy=policy,
        **given,
    )


def from_noise(images, seed):
    return noise_set(2, seed.value % 1_000)


@pytest.fixture(scope="module")
def quick() -> Audits:
    return run(QUICK)


def finding(verdict: Verdict) -> Finding:
    return Finding("closest", 1, "pixels/whole", 0.5, None, None, 1e-4, 0.2, 7, verdict)


def test_quick_looks_for_memorisation_alone(quick):
    assert quick.preset == "quick"
    assert [result.audit for result in quick.results] == ["memorisation"]
    assert quick.verdict("memorisation") is Verdict.PASSED
    assert quick.verdict("membership") is Verdict.NOT_RUN


def test_full_attacks_shadows_too(monkeypatch):
    monkeypatch.setattr(shadows, "MODEL_STEPS", 1)

    found = run(FULL, redistill=from_noise)

    assert found.preset == "full"
    assert [result.audit for result in found.results] == ["memorisation", "membership"]
    assert found.verdict("membership") is Verdict.PASSED


def test_full_without_a_pipeline_to_run_again_says_so():
    result = run(FULL).results[1]

    assert result.verdict is Verdict.NOT_RUN
    assert result.note == "nothing to condense shadow sets with"


@pytest.mark.parametrize("preset", ["quick", "full"])
def test_with_less_than_a_fifth_held_out_no_audit_counts(preset):
    found = run(ReleasePolicy(audits=preset, held_out=0.19))

    assert {result.verdict for result in found.results} == {Verdict.NOT_RUN}
    assert len(found.results) == (1 if preset == "quick" else 2)
    assert found.results[0].note == "held_out is 0.19, the audits need 0.2"


def test_audits_name_the_payload_that_they_saw(quick):
    assert quick.payload_sha256 == "0" * 64


def test_a_copied_patient_is_refused():
    arrays = replace(ARRAYS, images=shown(TRAIN).images[:4], labels=ARRAYS.labels)

    assert run(QUICK, arrays).verdict("memorisation") is Verdict.REFUSED


def test_one_refusing_finding_refuses():
    findings = [finding(Verdict.PASSED), finding(Verdict.REFUSED), finding(Verdict.PASSED)]

    result = AuditResult.of("memorisation", findings, seconds=1.0, note="")

    assert result.verdict is Verdict.REFUSED
    assert result.refusing == (finding(Verdict.REFUSED),)
    assert AuditResult.of("x", findings[:1], seconds=1.0, note="").verdict is Verdict.PASSED


def test_audits_come_back_from_their_file_as_they_were(quick, tmp_path):
    write_json(tmp_path / "audits.json", quick.to_json())

    assert Audits.from_json(read_json(tmp_path / "audits.json")) == quick


def test_what_is_kept_holds_figures_and_words_and_no_picture(quick):
    text = canonical_json(quick.to_json()).decode()

    assert len(text) < 30_000
    assert not any(group in text for group in TRAIN.groups)
    assert all(isinstance(f["value"], float) for f in json.loads(text)["results"][0]["findings"])


def test_memorisation_and_membership_draw_from_streams_of_their_own(monkeypatch):
    seeds = []
    passed = AuditResult.of("x", (), seconds=0.0, note="")
    for name in ("memorisation_audit", "membership_audit"):
        monkeypatch.setattr(
            audit, name, lambda subject, *, seed, **rest: seeds.append(seed) or passed
        )

    run(FULL, redistill=from_noise)

    assert len(set(seeds)) == 2
