"""A site's later rounds: they begin where the last one ended, whatever happened in between."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hospital_kit import TINY, Hospital, films, tiny_study
from wire_kit import RUN

from fedcondense.config.loading import parse_settings
from fedcondense.config.privacy import Budget, Declared, Unit
from fedcondense.config.site import SiteConfig
from fedcondense.config.study import Study
from fedcondense.errors import DescriptionRejected, LimitExceeded, SettingsError
from fedcondense.exchange.contribution import Released
from fedcondense.exchange.keys import SigningKey
from fedcondense.exchange.round_result import Expected, Given, read_given, result_of, sign_result
from fedcondense.exchange.run_description import Request
from fedcondense.exchange.sealing import Opened
from fedcondense.files.storage import read_arrays
from fedcondense.learning import global_networks
from fedcondense.privacy.accounting import compose
from fedcondense.privacy.ledger import PrivacyLedger
from fedcondense.progress import Step
from fedcondense.server.aggregate import aggregate
from fedcondense.site import checkpoint
from fedcondense.site.checkpoint import FileCheckpoints
from fedcondense.site.contribute import contribute, preview
from fedcondense.site.global_set import keep_global, kept_global, newest_round
from fedcondense.site.limits import check_study
from fedcondense.site.plan import planned_mechanisms, rounds_to_come
from fedcondense.site.refinement import last_set, networks_needed
from fedcondense.site.state import RoundState

pytestmark = pytest.mark.usefixtures("audits_pass")

OPERATOR = SigningKey.generate()
SCORES = {
    name: {"mean": 0.5, "sd": 0.1, "low": 0.4, "high": 0.6}
    for name in ("auroc", "balanced_accuracy")
}


def study_of(rounds: int = 2, **changes: Any) -> Study:
    values = tiny_study().model_dump(mode="json") | {"rounds": rounds} | changes
    return parse_settings(Study, values, "tiny")


LONGER = study_of(distill=TINY | {"iterations": 4, "push_interval": 2})


def site_of(hospital: Hospital, **changes: Any) -> SiteConfig:
    pinned = {"run_signing_fingerprint": OPERATOR.fingerprint}
    return hospital.site.model_copy(update=pinned | changes)


def state(hospital: Hospital, number: int) -> RoundState:
    return RoundState(hospital.folder, hospital.study.digest, number)


def given_after(hospital: Hospital, number: int, *, of: int | None = None) -> Given:
    """What the server sends after round `number`: the union of the set of round `of`, twice."""
    from fedcondense.site.payload import payload_of

    study = hospital.study
    payload = payload_of(state(hospital, of or number), study)
    opened = [Opened(name, payload, {}) for name in ("site-1", "site-2")]
    shared = aggregate(opened, study).shared
    result = result_of(shared, study, run=RUN, round=number, scores=SCORES)
    expected = Expected(study, OPERATOR.fingerprint, number, RUN)
    return read_given(sign_result(result, OPERATOR), shared.data, expected)


def play(hospital: Hospital, number: int, given: Given | None = None, **how: Any) -> bytes:
    request = Request(hospital.description(), number, given)
    site = how.pop("site", None) or site_of(hospital)
    return contribute(site, hospital.study, request, **how)


def interrupted_at(iteration: int):
    def watch(step: Step) -> None:
        if step.stage == "condensing" and step.done == iteration:
            raise KeyboardInterrupt

    return watch


@pytest.fixture(autouse=True)
def _learn_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """How much is learned from a global set is no question here, and takes most of the time."""
    monkeypatch.setattr(global_networks, "STEPS", 5)


@pytest.fixture
def hospital(tmp_path) -> Hospital:
    return Hospital(tmp_path, study_of())


def test_a_second_round_begins_with_the_sites_own_last_set(hospital):
    play(hospital, 1)
    play(hospital, 2, given_after(hospital, 1))

    first, second = (state(hospital, number).synthetic() for number in (1, 2))
    np.testing.assert_array_equal(second["started_from"], first["images"])
    assert not np.array_equal(second["images"], first["images"])
    assert state(hospital, 2).record()["round"] == 2


def test_the_same_global_set_gives_the_same_second_set_and_another_one_another(tmp_path):
    kept = []
    for name, of in (("one", 1), ("two", 1), ("three", 1)):
        hospital = Hospital(tmp_path / name, study_of())
        play(hospital, 1)
        given = given_after(hospital, 1, of=of)
        if name == "three":
            images = given.shared.images[::-1].copy()
            given = replace(given, shared=replace(given.shared, images=images))
        play(hospital, 2, given)
        kept.append(state(hospital, 2).synthetic()["images"])

    np.testing.assert_array_equal(kept[0], kept[1])
    assert not np.array_equal(kept[0], kept[2])


def test_a_site_that_missed_a_round_goes_on_from_the_one_before(tmp_path):
    hospital = Hospital(tmp_path, study_of(3))
    play(hospital, 1)

    play(hospital, 3, given_after(hospital, 2, of=1))

    started = state(hospital, 3).synthetic()["started_from"]
    np.testing.assert_array_equal(started, state(hospital, 1).synthetic()["images"])


def test_a_site_that_comes_late_begins_from_noise_with_what_the_others_know(tmp_path):
    others = Hospital(tmp_path / "others", study_of())
    play(others, 1)
    late = Hospital(tmp_path / "late", study_of())

    play(late, 2, given_after(others, 1))

    assert state(late, 2).finished()
    assert last_set(site_of(late), late.study, 2) is None


def test_a_site_with_a_class_fewer_than_before_refines_the_others(tmp_path):
    hospital = Hospital(tmp_path, study_of())
    play(hospital, 1)
    np.savez(hospital.folder / "images.npz", **films((4, 4, 1)))  # two patients withdrew

    play(hospital, 2, given_after(hospital, 1))

    second = state(hospital, 2).synthetic()
    assert second["labels"].tolist() == [0, 0, 1, 1]
    first = state(hospital, 1).synthetic()["images"]
    np.testing.assert_array_equal(second["started_from"], first[:4])


def test_a_class_that_is_new_at_a_site_joins_in_a_later_round(tmp_path):
    hospital = Hospital(tmp_path, study_of(), arrays=films((4, 4, 1)))
    play(hospital, 1)
    np.savez(hospital.folder / "images.npz", **films((4, 4, 4)))

    play(hospital, 2, given_after(hospital, 1))

    second = state(hospital, 2).synthetic()
    assert second["labels"].tolist() == [0, 0, 1, 1, 2, 2]
    first = state(hospital, 1).synthetic()["images"]
    np.testing.assert_array_equal(second["started_from"][:4], first)


def test_what_a_gate_refused_is_not_gone_on_from(hospital):
    play(hospital, 1)
    given = given_after(hospital, 1)
    state(hospital, 1).keep_refusal(["memorisation"])

    assert last_set(site_of(hospital), hospital.study, 2) is None
    play(hospital, 2, given)
    started = state(hospital, 2).synthetic()["started_from"]
    assert not np.array_equal(started, state(hospital, 1).synthetic()["images"])


def test_an_interrupted_second_round_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FileCheckpoints", _at_every_iteration)
    whole, broken = (Hospital(tmp_path / name, LONGER) for name in ("whole", "broken"))
    for hospital in (whole, broken):
        play(hospital, 1)
    play(whole, 2, given_after(whole, 1))

    with pytest.raises(KeyboardInterrupt):
        play(broken, 2, given_after(broken, 1), watch=interrupted_at(3))
    assert state(broken, 2).checkpoint.exists()
    steps: list[Step] = []
    play(broken, 2, given_after(broken, 1), watch=steps.append)

    assert [step.done for step in steps if step.stage == "condensing"] == [3, 4]
    np.testing.assert_array_equal(
        state(broken, 2).synthetic()["images"], state(whole, 2).synthetic()["images"]
    )


def test_a_checkpoint_of_another_global_set_is_not_gone_on_from(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FileCheckpoints", _at_every_iteration)
    hospital = Hospital(tmp_path, LONGER)
    play(hospital, 1)
    given = given_after(hospital, 1)
    with pytest.raises(KeyboardInterrupt):
        play(hospital, 2, given, watch=interrupted_at(3))

    other = replace(given, result=replace(given.result, set_sha256="0" * 64))
    steps: list[Step] = []
    play(hospital, 2, other, watch=steps.append)

    assert [step.done for step in steps if step.stage == "condensing"] == [1, 2, 3, 4]


def _at_every_iteration(path, identity):
    return FileCheckpoints(path, identity, interval=0.0)


def test_the_same_request_for_a_second_round_is_answered_alike(hospital):
    play(hospital, 1)
    given = given_after(hospital, 1)

    assert play(hospital, 2, given) == play(hospital, 2, given)


def test_without_the_global_set_a_second_round_reads_no_image(hospital, monkeypatch):
    from fedcondense.site import cohort

    monkeypatch.setattr(cohort, "load_images", lambda *_, **__: pytest.fail("images were read"))

    with pytest.raises(SettingsError, match="begins with the global set of round 1"):
        play(hospital, 2)


def test_preview_goes_on_with_the_global_set_that_the_server_sent_last(hospital):
    site, study = site_of(hospital), hospital.study
    play(hospital, 1)
    assert newest_round(site, study) == 1
    keep_global(hospital.folder, given_after(hospital, 1))

    assert newest_round(site, study) == 2
    assert isinstance(preview(site, study, round=2), Released)


def test_a_kept_global_set_is_verified_again_whenever_it_is_used(hospital):
    play(hospital, 1)
    folder = keep_global(hospital.folder, given_after(hospital, 1))
    expected = Expected(hospital.study, OPERATOR.fingerprint, 1)
    kept = kept_global(hospital.folder, expected)
    assert kept is not None
    assert read_arrays(folder / "set.safetensors").keys() == {"images", "labels"}

    data = bytearray((folder / "set.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "set.safetensors").write_bytes(data)

    with pytest.raises(DescriptionRejected):
        kept_global(hospital.folder, expected)


def test_a_round_beyond_the_study_or_a_study_beyond_the_sites_rounds_is_refused(hospital):
    limits = hospital.site.limits

    with pytest.raises(LimitExceeded, match="this would be round 3 of 2"):
        check_study(limits, hospital.study, 3)
    with pytest.raises(LimitExceeded, match="the study has 2 rounds"):
        check_study(limits.model_copy(update={"max_rounds": 1}), hospital.study, 1)


@pytest.mark.parametrize(
    ("distill", "privacy", "needed"),
    [
        ({"method": "dm"}, {"mode": "none"}, 0),
        (TINY | {"queue_start": 3}, {"mode": "none"}, 3),
        (TINY | {"queue": "experts"}, {"mode": "none"}, 1),
        ({"method": "mtt"}, {"mode": "none"}, 1),
        ({"method": "dm"}, {"mode": "dp-embed", "epsilon": 8.0, "maps": 2}, 2),
        ({"method": "dm"}, {"mode": "dp-embed", "epsilon": 8.0}, 8),
        (TINY | {"queue_start": 5}, {"mode": "dp-embed", "epsilon": 8.0, "maps": 2}, 5),
    ],
)
def test_as_many_networks_learn_from_the_global_set_as_the_method_begins_with(
    distill, privacy, needed
):
    assert networks_needed(study_of(distill=distill, privacy=privacy)) == needed


# Differential privacy


PRIVATE = {"mode": "dp-embed", "epsilon": 50.0, "delta": 1e-5, "unit": "patient", "maps": 1}
MANY = films((60, 60, 60))


@pytest.fixture
def private(tmp_path) -> Hospital:
    return Hospital(tmp_path, study_of(2, privacy=PRIVATE), arrays=MANY)


def private_site(hospital: Hospital, epsilon: float = 50.0) -> SiteConfig:
    budget = Budget(epsilon=epsilon, delta=1e-5, unit=Unit.PATIENT)
    return site_of(hospital, ledger=budget, declared=Declared(images=180, patients=180))


def ledger_of(hospital: Hospital) -> PrivacyLedger:
    site = private_site(hospital)
    return PrivacyLedger.open(site.ledger_folder, site.population, site.ledger)


@pytest.mark.slow
def test_both_rounds_are_paid_for_and_together_they_stay_within_the_studys_epsilon(private):
    site = private_site(private)
    play(private, 1, site=site)
    play(private, 2, given_after(private, 1), site=site)

    rows = [row for row in ledger_of(private).rows() if row.sigma is not None]
    assert [row.round for row in rows] == [1, 2]
    assert ledger_of(private).spent().epsilon <= 50.0
    assert rounds_to_come(private.study, rows) == 0


@pytest.mark.slow
def test_the_record_of_a_second_round_states_what_both_rounds_cost(private):
    site = private_site(private)
    play(private, 1, site=site)
    play(private, 2, given_after(private, 1), site=site)

    first, second = (state(private, number).record()["privacy"] for number in (1, 2))
    both = compose(planned_mechanisms(site, private.study) * 2, 1e-5).epsilon
    assert (len(first["rows"]), len(second["rows"])) == (1, 2)
    assert float(first["epsilon"]) < float(second["epsilon"])
    assert float(second["epsilon"]) == pytest.approx(both, rel=1e-4)
    assert state(private, 2).record()["data_accesses"] == 2


@pytest.mark.slow
def test_a_second_round_is_charged_before_an_image_is_read(private, monkeypatch):
    from fedcondense.site import cohort

    site = private_site(private)
    play(private, 1, site=site)
    given = given_after(private, 1)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cohort, "load_images", killed)
    with pytest.raises(KeyboardInterrupt):
        play(private, 2, given, site=site)

    assert [row.round for row in ledger_of(private).rows() if row.sigma is not None] == [1, 2]


def test_a_plan_of_more_rounds_has_more_noise_in_each(private):
    site = private_site(private)

    one, two, five = (
        planned_mechanisms(site, study_of(rounds, privacy=PRIVATE))[0].sigma for rounds in (1, 2, 5)
    )

    assert one < two < five
