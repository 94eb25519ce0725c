from __future__ import annotations

import datetime
import json
from dataclasses import replace

import numpy as np
import pytest
from wire_kit import (
    HEAD,
    arrays_of,
    audited,
    canonical,
    decided,
    learning_study,
    paid_for,
    payload_of,
    private_study,
    row_of,
    small_study,
)

import fedcondense
from fedcondense.config.scenario import ReleaseMode
from fedcondense.config.site import ReleasePolicy
from fedcondense.config.synthesis import Start
from fedcondense.errors import ReleaseRefused
from fedcondense.exchange.contribution import Payload, Provenance, SyntheticArrays, encode_payload
from fedcondense.exchange.release_record import STUDIED, Refusal, check_record
from fedcondense.exchange.terms import terms_of
from fedcondense.privacy.provenance import provenance_problems

STUDY = small_study()
REAL = small_study(distill={"method": "idm", "start": "real"})
LEARNING = learning_study()
PRIVATE = private_study()
FULL = ReleasePolicy(audits="full")
FORBIDDEN = ("anonym", "de-identif", "safe", "gdpr", "hipaa", "private", "no patient data leaves")


def enforced(payload: Payload, study=STUDY, **evidence):
    return decided(payload, study, ReleaseMode.ENFORCED, **evidence)


def studied(payload: Payload, study=STUDY, **evidence):
    return decided(payload, study, ReleaseMode.STUDY_ONLY, **evidence)


def reasons(payload: Payload, study=STUDY, **evidence) -> str:
    with pytest.raises(ReleaseRefused) as refused:
        enforced(payload, study, **evidence)
    assert refused.value.exit_code == 3
    return refused.value.message.removeprefix("nothing is released: ")


def claiming(payload: Payload, **claims) -> Payload:
    return replace(payload, provenance=replace(payload.provenance, **claims))


def with_image(row: int, image: np.ndarray) -> Payload:
    arrays = arrays_of(STUDY, (0, 0, 1))
    arrays.images[row] = image
    return encode_payload(arrays, Provenance.of(STUDY, ()), STUDY)


def test_a_set_from_noise_is_released_for_release():
    payload = payload_of(STUDY)

    released = enforced(payload)

    assert released.payload is payload
    assert released.purpose == "release"


def test_the_record_says_what_leaves_and_under_which_words():
    record = enforced(payload_of(STUDY, (1, 1))).record

    assert record["classes_left_out"] == ["normal"]
    assert (record["round"], record["attempts"], record["data_accesses"]) == (1, 1, 1)
    assert record["software"] == f"fedcondense {fedcondense.__version__}"
    assert record["declared"] == {"images": 5000, "patients": 4000}
    assert record["statement"] == (
        "Contains 2 synthetic images optimised from 5000 records; started from noise; "
        "no original image is included. No formal privacy guarantee. "
        "Empirical audit: provenance passed, memorisation passed, membership not run. "
        "A passed audit bounds only the attacks run. Treat as personal data under contract."
    )


def test_the_record_is_of_the_day_and_a_reader_takes_it():
    payload = payload_of(PRIVATE)

    record = enforced(payload, PRIVATE, round=3, attempts=2).record

    today = datetime.datetime.now(datetime.UTC).date()
    assert today - datetime.date.fromisoformat(record["date"]) <= datetime.timedelta(1)
    check_record(record, payload, terms_of(PRIVATE), purpose="release", round=3)


@pytest.mark.parametrize("study", [STUDY, REAL, LEARNING, PRIVATE])
def test_a_record_holds_only_integers_and_words_that_are_allowed(study):
    record = studied(payload_of(study), study).record

    text = canonical(record).decode().lower()
    assert all(isinstance(v, int | str | list | dict) for v in record.values())
    assert not [word for word in FORBIDDEN if word in text]


def test_the_same_payload_has_the_same_record():
    assert enforced(payload_of(STUDY)) == enforced(payload_of(STUDY))


def test_a_real_start_is_refused():
    with pytest.raises(ReleaseRefused, match=r"^nothing is released: real-start$") as refused:
        enforced(payload_of(REAL), REAL)

    assert refused.value.exit_code == 3
    assert refused.value.code == "FC401"
    assert refused.value.hint.startswith("condense from noise")


@pytest.mark.parametrize("method", ["random", "herding", "forgetting"])
@pytest.mark.parametrize("mode", list(ReleaseMode))
def test_a_coreset_that_is_not_the_studys_method_is_refused_in_every_mode(method, mode):
    with pytest.raises(ReleaseRefused, match="coreset"):
        decided(claiming(payload_of(STUDY), method=method), STUDY, mode)


def test_under_study_only_the_refusal_stands_in_the_record():
    released = studied(payload_of(REAL), REAL)

    assert released.purpose == "simulation"
    assert released.record["verdict"] == "refused"
    assert released.record["refusals"] == ["real-start"]
    assert released.record["statement"] == (
        "Contains 3 synthetic images optimised from 5000 records; "
        "started from real images. No formal privacy guarantee. "
        "Empirical audit: provenance refused, memorisation passed, membership not run. "
        "For study on one machine, not for release. Treat as personal data under contract."
    )


def test_under_study_only_a_good_set_still_carries_the_purpose_simulation():
    released = studied(payload_of(STUDY))

    assert (released.purpose, released.record["verdict"]) == ("simulation", "passed")


@pytest.mark.parametrize(
    "claims", [{"method": ""}, {"start": ""}, {"partition": 0}, {"recipe": {}}]
)
@pytest.mark.parametrize("mode", list(ReleaseMode))
def test_missing_provenance_is_refused_in_every_mode(claims, mode):
    with pytest.raises(ReleaseRefused, match=r"^nothing is released: provenance-missing$"):
        decided(claiming(payload_of(STUDY), **claims), STUDY, mode)


@pytest.mark.parametrize(
    "claims",
    [
        {"method": "mtt"},
        {"start": "public"},
        {"partition": 1},
        {"recipe": {"image": {}}},
        {"left_out": ("normal",)},
        {"left_out": ("unheard of",)},
    ],
)
@pytest.mark.parametrize("mode", list(ReleaseMode))
def test_provenance_against_the_study_or_the_labels_is_refused_in_every_mode(claims, mode):
    with pytest.raises(ReleaseRefused, match="provenance-contradictory") as refused:
        decided(claiming(payload_of(STUDY), **claims), STUDY, mode)

    assert "study file as agreed" in refused.value.hint


def test_a_class_without_an_image_must_be_named():
    arrays = arrays_of(STUDY, (1,))

    with pytest.raises(ReleaseRefused, match="provenance-contradictory"):
        enforced(encode_payload(arrays, Provenance.of(STUDY, ()), STUDY))


def test_a_real_start_declared_as_noise_against_the_study_is_refused():
    with pytest.raises(ReleaseRefused, match="provenance-contradictory"):
        enforced(claiming(payload_of(REAL), start=Start.NOISE.value), REAL)


@pytest.mark.parametrize("scale", [{"hi": "nan"}, {"hi": "inf"}, {"lo": ""}])
def test_a_scale_that_is_no_number_is_refused(scale):
    with pytest.raises(ReleaseRefused, match=r"^nothing is released: not-finite$"):
        enforced(replace(payload_of(STUDY), **scale))


@pytest.mark.parametrize("value", [0.0, -4.0, 4.0, 99.0])
def test_a_constant_image_is_refused(value):
    with pytest.raises(ReleaseRefused, match=r"^nothing is released: constant$"):
        enforced(with_image(1, np.full((1, 16, 16), value, np.float32)))


def test_an_image_that_is_constant_only_after_rounding_is_refused():
    almost = np.linspace(0, 0.005, 256, dtype=np.float32).reshape(1, 16, 16)

    with pytest.raises(ReleaseRefused, match="constant"):
        enforced(with_image(2, almost))


def test_two_equal_images_are_refused_whatever_their_labels():
    first = arrays_of(STUDY, (0, 0, 1)).images[0]

    with pytest.raises(ReleaseRefused, match=r"^nothing is released: duplicate-images$"):
        enforced(with_image(2, first))


def test_two_images_that_are_equal_only_after_rounding_are_refused():
    arrays = arrays_of(STUDY, (0, 0, 1))
    arrays.images[1] = arrays.images[0].clip(-4, 4) * np.float32(1 + 1e-7)
    payload = encode_payload(arrays, Provenance.of(STUDY, ()), STUDY)

    assert provenance_problems(payload, STUDY) == (Refusal.DUPLICATE,)


def test_every_reason_is_named_at_once():
    arrays = SyntheticArrays(np.zeros((2, 1, 16, 16), np.float32), np.array([0, 1], np.uint8))
    payload = encode_payload(arrays, Provenance.of(REAL, ("normal",)), REAL)

    with pytest.raises(ReleaseRefused) as refused:
        studied(payload, REAL)

    assert refused.value.message == (
        "nothing is released: provenance-contradictory, real-start, constant, duplicate-images"
    )


def test_soft_labels_and_a_step_size_are_released_and_named_in_the_record():
    payload = payload_of(LEARNING)

    released = enforced(payload, LEARNING)

    assert released.payload is payload
    assert released.record["payload_sha256"] == payload.sha256
    assert released.record["soft_labels"] == "float16"
    assert released.record["student_lr"] == payload.student_rate
    plain = enforced(payload_of(STUDY)).record
    assert released.record.keys() - plain.keys() == {"soft_labels", "student_lr"}


@pytest.mark.parametrize("change", [{"soft": b""}, {"student_rate": None}])
@pytest.mark.parametrize("mode", list(ReleaseMode))
def test_what_the_study_learns_and_the_set_lacks_is_refused_in_every_mode(change, mode):
    with pytest.raises(ReleaseRefused, match=r"^nothing is released: provenance-contradictory$"):
        decided(replace(payload_of(LEARNING), **change), LEARNING, mode)


@pytest.mark.parametrize("change", [{"soft": bytes(12)}, {"student_rate": "0.01"}])
@pytest.mark.parametrize("mode", list(ReleaseMode))
def test_what_the_study_does_not_learn_is_not_released_in_any_mode(change, mode):
    with pytest.raises(ReleaseRefused, match=r"^nothing is released: provenance-contradictory$"):
        decided(replace(payload_of(STUDY), **change), STUDY, mode)


@pytest.mark.parametrize(
    "change",
    [
        {"soft": np.array([[np.nan, 1]] * 3, "<f2").tobytes()},
        {"soft": np.array([[np.inf, 0]] * 3, "<f2").tobytes()},
        {"student_rate": "nan"},
        {"student_rate": "0"},
        {"student_rate": "1e-5"},
    ],
)
def test_soft_labels_or_a_step_size_that_are_no_number_are_refused(change):
    with pytest.raises(ReleaseRefused, match=r"^nothing is released: not-finite$"):
        enforced(replace(payload_of(LEARNING), **change), LEARNING)


@pytest.mark.parametrize(
    ("verdicts", "policy", "problems"),
    [
        ({}, ReleasePolicy(), None),
        ({"membership": "passed"}, ReleasePolicy(), None),
        ({"membership": "passed"}, FULL, None),
        ({"memorisation": "refused"}, ReleasePolicy(), "audit-memorisation"),
        ({"memorisation": "not-run"}, ReleasePolicy(), "audit-missing"),
        ({"membership": "refused"}, ReleasePolicy(), "audit-membership"),
        ({}, FULL, "audit-missing"),
        ({"membership": "refused"}, FULL, "audit-membership"),
        ({"memorisation": "refused"}, FULL, "audit-missing, audit-memorisation"),
        (
            {"memorisation": "refused", "membership": "refused"},
            FULL,
            "audit-memorisation, audit-membership",
        ),
    ],
)
def test_memorisation_has_to_pass_and_under_full_membership_too(verdicts, policy, problems):
    payload = payload_of(STUDY)
    evidence = {"audits": audited(payload, **verdicts), "policy": policy}

    if problems is None:
        assert enforced(payload, **evidence).purpose == "release"
    else:
        assert reasons(payload, **evidence) == problems


def test_audits_of_another_payload_say_nothing_of_this_one():
    payload, other = payload_of(STUDY), payload_of(STUDY, seed=1)

    assert reasons(payload, audits=audited(other)) == "audit-missing"
    assert studied(payload, audits=audited(other)).record["audits"] == {
        "provenance": "passed",
        "memorisation": "not-run",
        "membership": "not-run",
    }


def test_a_byte_changed_after_the_audits_is_a_payload_without_audits():
    payload = payload_of(STUDY)
    audits = audited(payload)
    changed = replace(payload, pixels=bytes([payload.pixels[0] ^ 1]) + payload.pixels[1:])

    assert reasons(changed, audits=audits) == "audit-missing"


def test_a_set_that_is_not_paid_for_is_refused():
    payload = payload_of(PRIVATE)

    assert reasons(payload, PRIVATE, paid=None) == "ledger"
    assert reasons(payload, PRIVATE, accesses=2) == "ledger"
    assert reasons(payload, PRIVATE, paid=paid_for(STUDY)) == "ledger"
    assert reasons(payload_of(STUDY), paid=paid_for(PRIVATE)) == "ledger"


@pytest.mark.parametrize(
    ("evidence", "refusals"),
    [
        ({"accesses": 2}, ["ledger"]),
        ({"paid": None}, ["ledger"]),
        ({"verdicts": {"memorisation": "not-run"}}, ["audit-missing"]),
        ({"verdicts": {"memorisation": "refused"}}, ["audit-memorisation"]),
        ({"verdicts": {"membership": "refused"}}, ["audit-membership"]),
    ],
)
def test_under_study_only_such_a_refusal_stands_in_a_record_that_is_read(evidence, refusals):
    payload = payload_of(PRIVATE)
    audits = audited(payload, **evidence.pop("verdicts", {}))

    record = studied(payload, PRIVATE, audits=audits, **evidence).record

    assert record["refusals"] == refusals
    check_record(record, payload, terms_of(PRIVATE), purpose="simulation", round=1)


def test_what_was_paid_is_shown_even_where_it_does_not_bear_the_release_out():
    block = studied(payload_of(PRIVATE), PRIVATE, accesses=2).record["privacy"]

    assert block["ledger_head"] == HEAD
    assert "epsilon" not in block


@pytest.mark.parametrize("refusal", sorted(STUDIED))
def test_every_refusal_that_is_no_defect_has_a_hint_of_its_own(refusal):
    payload = payload_of(PRIVATE)
    arrays = arrays_of(PRIVATE, (0, 0))
    arrays.images[1] = arrays.images[0]
    double = encode_payload(arrays, Provenance.of(PRIVATE, ("pneumonia",)), PRIVATE)
    faults = {
        Refusal.REAL_START: (payload_of(REAL), REAL, {}),
        Refusal.CORESET: (claiming(payload, method="random"), PRIVATE, {}),
        Refusal.DUPLICATE: (double, PRIVATE, {}),
        Refusal.LEDGER: (payload, PRIVATE, {"accesses": 7}),
        Refusal.AUDIT_MISSING: (payload, PRIVATE, {"policy": FULL}),
        Refusal.AUDIT_MEMORISATION: (
            payload,
            PRIVATE,
            {"audits": audited(payload, memorisation="refused")},
        ),
        Refusal.AUDIT_MEMBERSHIP: (
            payload,
            PRIVATE,
            {"audits": audited(payload, membership="refused")},
        ),
    }
    faulty, study, evidence = faults[refusal]

    with pytest.raises(ReleaseRefused, match=refusal.value) as refused:
        enforced(faulty, study, **evidence)

    assert "study file as agreed" not in refused.value.hint


def test_nothing_that_only_the_site_knows_reaches_the_record():
    """The ledger's rows hold a digest of the data and times; audits hold whatever they found."""
    planted = "Jane Doe, 1.2.840.10008, /data/0412.dcm"
    row = row_of(PRIVATE, data_digest=planted, time=planted, versions={"opacus": "1.6.0"})
    payload = payload_of(PRIVATE)
    result = replace(audited(payload).results[0], note=planted)
    audits = replace(audited(payload), preset=planted, results=(result,))

    record = enforced(payload, PRIVATE, paid=paid_for(PRIVATE, rows=(row,)), audits=audits).record

    text = json.dumps(record)
    assert not [of for of in ("Jane", "1.2.840", "0412", ".dcm", "dddd", "08:00") if of in text]


def test_a_site_that_declares_nothing_says_so():
    said = enforced(payload_of(STUDY), declared=None).record["statement"]

    assert "optimised from an undeclared number of records;" in said
    assert reasons(payload_of(PRIVATE), PRIVATE, declared=None) == "ledger"
