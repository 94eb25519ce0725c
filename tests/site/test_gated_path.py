"""The hospital's path under differential privacy and under a data officer."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hospital_kit import Hospital, films, tiny_study

from fedcondense.config.loading import parse_settings
from fedcondense.config.study import Study
from fedcondense.data import loading
from fedcondense.distill.source import PlainSource
from fedcondense.errors import (
    ApprovalMissing,
    BudgetExhausted,
    LedgerError,
    ReleaseRefused,
    SettingsError,
)
from fedcondense.exchange.keys import SigningKey
from fedcondense.privacy.chain import Row, State
from fedcondense.privacy.dp_embed import DpEmbedSource
from fedcondense.privacy.dp_sgd import DpSgdSource
from fedcondense.privacy.ledger import PrivacyLedger
from fedcondense.privacy.units import UnitImages
from fedcondense.progress import Step
from fedcondense.site import cohort, local_page, sources
from fedcondense.site import contribute as module
from fedcondense.site.officer import approve_payload

pytestmark = pytest.mark.usefixtures("audits_pass")

LOOSE = 60.0  # an epsilon under which no class of this size is lost in the noise
EMBED = {"mode": "dp-embed", "epsilon": LOOSE, "maps": 2}
OF_A_CLASS = {"dp-sgd": 400}  # class counts are noised with a standard deviation of 40


def embed_study() -> Study:
    values = tiny_study().model_dump(mode="json", exclude_none=True)
    distill = {"method": "dm", "iterations": 2}
    return parse_settings(Study, values | {"privacy": EMBED, "distill": distill}, "tiny")


def experts_study() -> Study:
    values = tiny_study().model_dump(mode="json", exclude_none=True)
    distill = {
        "method": "pruned-mtt",
        "iterations": 2,
        "student_steps": 2,
        "synthetic_batch": 3,
        "expert_epochs": 1,
        "max_start": 2,
        "experts": {"count": 1, "epochs": 2, "batch": 120, "rate": 0.1},
    }
    privacy = {"mode": "dp-sgd", "epsilon": LOOSE}
    return parse_settings(Study, values | {"privacy": privacy, "distill": distill}, "tiny")


STUDIES = {"none": tiny_study, "dp-embed": embed_study, "dp-sgd": experts_study}
SLOW = pytest.param("dp-sgd", marks=pytest.mark.slow)  # its noise takes seconds to solve for
PRIVATE = ["dp-embed", SLOW]


def hospital_for(folder: Path, mode: str, *, budget: float = 100.0, **other: Any) -> Hospital:
    settings: dict[str, Any] = {}
    each = OF_A_CLASS.get(mode, 12)
    if mode != "none":
        settings = {"ledger": {"epsilon": budget}, "declared": {"images": 3 * each}}
    return Hospital(
        folder,
        study=STUDIES[mode](),
        arrays=films((each, each, each)),
        least=2,
        settings=settings,
        **other,
    )


def rows_of(hospital: Hospital) -> tuple[Row, ...]:
    site = hospital.site
    return PrivacyLedger.open(site.ledger_folder, site.population, site.ledger).rows()


def states_of(hospital: Hospital) -> list[State]:
    return [row.state for row in rows_of(hospital)]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each time that a method reads anything derived from patients."""
    seen: list[str] = []
    read = UnitImages.read

    def spy(self: UnitImages, what: str, **options: Any) -> Any:
        seen.append(what)
        return read(self, what, **options)

    monkeypatch.setattr(UnitImages, "read", spy)
    return seen


@pytest.mark.parametrize("mode", PRIVATE)
def test_each_reading_of_patients_has_exactly_one_charged_row(tmp_path, mode, reads):
    hospital = hospital_for(tmp_path, mode)

    hospital.contribute()

    charged = [row.mechanism for row in rows_of(hospital) if row.state is State.CHARGED]
    assert charged == reads
    assert hospital.state.outlay().accesses == len(charged)
    assert states_of(hospital)[len(charged) :] == [State.DONE, State.REHEARSAL]


def test_without_differential_privacy_there_is_one_unbounded_row(tmp_path):
    hospital = hospital_for(tmp_path, "none")

    hospital.contribute()

    assert states_of(hospital) == [State.UNBOUNDED, State.DONE, State.REHEARSAL]


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("none", PlainSource),
        ("dp-embed", DpEmbedSource),
        pytest.param("dp-sgd", DpSgdSource, marks=pytest.mark.slow),
    ],
)
def test_a_method_gets_the_handle_that_its_mode_grants(tmp_path, monkeypatch, mode, kind):
    given = []
    distill = module.distill

    def spy(source: Any, *args: Any, **options: Any) -> Any:
        given.append(type(source))
        return distill(source, *args, **options)

    monkeypatch.setattr(module, "distill", spy)

    hospital_for(tmp_path, mode).contribute()

    assert given == [kind]


@pytest.mark.parametrize("mode", ["none", *PRIVATE])
def test_rows_are_written_before_an_image_is_opened(tmp_path, mode, monkeypatch):
    hospital, by_then = hospital_for(tmp_path, mode), []

    def spy(*args: Any, **options: Any) -> Any:
        by_then.append(states_of(hospital))
        return loading.load_images(*args, **options)

    monkeypatch.setattr(cohort, "load_images", spy)
    hospital.contribute()

    [states] = by_then
    assert states
    assert set(states) <= {State.CHARGED, State.UNBOUNDED}


@pytest.mark.parametrize("mode", PRIVATE)
def test_a_study_beyond_the_budget_is_refused_before_an_image_is_opened(
    tmp_path, mode, monkeypatch
):
    hospital = hospital_for(tmp_path, mode, budget=1.0)
    monkeypatch.setattr(cohort, "load_images", lambda *a, **o: pytest.fail("an image was opened"))

    with pytest.raises(BudgetExhausted):
        hospital.contribute()

    assert rows_of(hospital) == ()


def test_a_killed_run_is_charged_again_and_never_goes_on(tmp_path):
    hospital = hospital_for(tmp_path, "dp-embed")
    hospital.settings["ledger"] = {"epsilon": 100.0, "delta": 1e-3}
    steps: list[int] = []

    def kill_the_first(step: Step) -> None:
        if step.stage == "condensing":
            steps.append(step.done)
            if len(steps) == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hospital.contribute(watch=kill_the_first)
    kept = list(hospital.folder.rglob("*.safetensors"))
    hospital.contribute(watch=kill_the_first)

    assert kept == []
    assert steps == [1, 2, 1, 2]
    assert states_of(hospital)[:3] == [State.CHARGED, State.CHARGED, State.DONE]


def another_round(hospital: Hospital) -> None:
    """A second study on the same patients."""
    values = hospital.study.model_dump(mode="json", exclude_none=True) | {"name": "another"}
    hospital.study = parse_settings(Study, values, "another")
    hospital.contribute()


def test_a_ledger_that_was_lost_whole_is_refused(tmp_path):
    hospital = hospital_for(tmp_path, "none")
    hospital.contribute()

    shutil.rmtree(hospital.site.ledger_folder)

    with pytest.raises(LedgerError, match="both of its files were lost or set back"):
        hospital.contribute()
    with pytest.raises(LedgerError, match="both of its files were lost or set back"):
        another_round(hospital)
    assert rows_of(hospital) == ()


def test_an_old_copy_of_both_files_of_the_ledger_is_refused(tmp_path):
    hospital = hospital_for(tmp_path, "none")
    hospital.contribute()
    shutil.copytree(hospital.site.ledger_folder, tmp_path / "backup")
    another_round(hospital)

    shutil.rmtree(hospital.site.ledger_folder)
    shutil.copytree(tmp_path / "backup", hospital.site.ledger_folder)

    with pytest.raises(LedgerError, match="does not hold what an earlier set was paid with"):
        hospital.contribute()


def test_a_set_that_was_put_aside_is_asked_for_its_receipt_too(tmp_path):
    hospital = hospital_for(tmp_path, "none")
    hospital.contribute()
    hospital.state.keep_refusal(["audit-memorisation"])
    hospital.state.begin_anew(2)

    shutil.rmtree(hospital.site.ledger_folder)

    with pytest.raises(LedgerError):
        hospital.contribute()


def test_the_ledger_of_other_patients_is_asked_for_nothing(tmp_path):
    hospital = hospital_for(tmp_path, "none")
    hospital.contribute()

    hospital.settings["population"] = "others"
    another_round(hospital)

    assert states_of(hospital)[0] is State.UNBOUNDED


@pytest.mark.parametrize("mode", PRIVATE)
def test_two_hospitals_with_equal_seeds_and_images_are_noised_differently(tmp_path, mode):
    sets = []
    for name in ("one", "two"):
        hospital = hospital_for(tmp_path / name, mode)
        hospital.contribute()
        sets.append(hospital.state.synthetic()["images"])

    assert not np.array_equal(*sets)


def test_a_record_states_the_guarantee_that_was_paid(tmp_path):
    hospital = hospital_for(tmp_path, "dp-embed")

    opened = hospital.open(hospital.contribute())

    guarantee = opened.record["privacy"]
    assert float(guarantee["epsilon"]) <= LOOSE
    assert guarantee["unit"] == "image"


def test_a_record_that_was_read_on_one_day_is_sent_on_another(tmp_path, monkeypatch):
    hospital = hospital_for(tmp_path, "none")
    monkeypatch.setattr(module, "today", lambda: "2026-01-01")
    read = module.preview(hospital.site, hospital.study, round=1).record

    monkeypatch.setattr(module, "today", lambda: "2026-01-02")
    sent = hospital.open(hospital.contribute()).record

    assert sent == read
    assert sent["date"] == "2026-01-01"


def test_a_record_is_made_anew_where_the_evidence_is_another(tmp_path, monkeypatch):
    hospital = hospital_for(tmp_path, "none")
    monkeypatch.setattr(module, "today", lambda: "2026-01-01")
    module.preview(hospital.site, hospital.study, round=1)

    monkeypatch.setattr(module, "today", lambda: "2026-01-02")
    hospital.settings["declared"] = {"images": 36}
    sent = hospital.open(hospital.contribute()).record

    assert (sent["date"], sent["declared"]["images"]) == ("2026-01-02", 36)


def test_the_ledger_knows_which_images_were_read(tmp_path):
    hospital = hospital_for(tmp_path, "none")
    hospital.contribute()

    paid, done, _ = rows_of(hospital)

    assert (paid.data_digest, done.state) == ("", State.DONE)
    assert done.data_digest == hospital.state.figures().data_digest != ""


def test_the_page_names_no_class_that_the_set_has_not(tmp_path, monkeypatch):
    hospital = hospital_for(tmp_path, "dp-embed")
    release = sources.release_class_embeddings

    def without_the_last(*args: Any, **options: Any) -> Any:
        found = release(*args, **options)
        return dataclasses.replace(found, labels=(0, 1))

    monkeypatch.setattr(sources, "release_class_embeddings", without_the_last)
    shown: list[Any] = []
    monkeypatch.setattr(local_page, "write_record_page", lambda path, local: shown.append(local))

    hospital.contribute()

    assert list(shown[0].training) == ["COVID", "Normal"]


def test_what_a_site_says_of_its_data_is_shown_to_its_officer_and_not_sent(tmp_path):
    hospital = hospital_for(tmp_path, "none")
    hospital.settings["about"] = {"ethics": "EK 7/2024", "modality": "chest films"}

    blob = hospital.contribute()

    page = hospital.state.page.read_text()
    assert "EK 7/2024" in page
    assert "chest films" in page
    assert b"EK 7/2024" not in hospital.plaintext(blob)


def supervised(folder: Path) -> tuple[Hospital, SigningKey]:
    """A hospital whose data officer has to sign, and that officer's key."""
    officer = SigningKey.generate()
    officer.save(folder / "officer.key")
    release = {
        "needs_approval": True,
        "officer": officer.fingerprint,
        "officer_key": str(folder / "officer.key"),
    }
    return hospital_for(folder, "none", release=release), officer


def sealed_files(hospital: Hospital) -> list[Path]:
    return list(hospital.folder.rglob("*.sealed"))


def prepared(hospital: Hospital) -> str:
    """The digest of what would leave."""
    return module.preview(hospital.site, hospital.study, round=1).payload.sha256


def test_nothing_leaves_before_the_officer_has_signed(tmp_path):
    hospital, _ = supervised(tmp_path)

    with pytest.raises(ApprovalMissing, match="has not approved"):
        hospital.contribute()
    assert sealed_files(hospital) == []
    approve_payload(hospital.site, hospital.state, prepared(hospital))
    hospital.contribute()

    assert len(sealed_files(hospital)) == 1


def test_an_approval_of_another_set_lets_nothing_leave(tmp_path):
    hospital, _ = supervised(tmp_path)
    prepared(hospital)
    approve_payload(hospital.site, hospital.state, "0" * 64)

    with pytest.raises(ApprovalMissing, match="another set"):
        hospital.contribute()

    assert sealed_files(hospital) == []


def test_the_key_of_somebody_else_approves_nothing(tmp_path):
    hospital, _ = supervised(tmp_path)
    digest = prepared(hospital)
    SigningKey.generate().save(tmp_path / "other.key")
    hospital.release["officer_key"] = str(tmp_path / "other.key")

    with pytest.raises(SettingsError, match="is not the key"):
        approve_payload(hospital.site, hospital.state, digest)
    with pytest.raises(ApprovalMissing):
        hospital.contribute()


def test_a_set_that_the_gate_refused_cannot_be_approved_past_it(tmp_path):
    hospital, _ = supervised(tmp_path)
    hospital.study = tiny_study(start="real")
    with pytest.raises(ReleaseRefused):
        module.preview(hospital.site, hospital.study, round=1)
    payload = module.payload_of(hospital.state, hospital.study)
    approve_payload(hospital.site, hospital.state, payload.sha256)

    with pytest.raises(ReleaseRefused):
        hospital.contribute()

    assert sealed_files(hospital) == []
