"""Writer and reader of the record that leaves: what is rebuilt, and what has a form and a range."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_kit import (
    DECLARED,
    HEAD,
    canonical,
    decided,
    facts_of,
    guarantee_of,
    learning_study,
    paid_for,
    payload_of,
    private_study,
    small_study,
)

from fedcondense.config.privacy import Declared, Unit
from fedcondense.config.scenario import ReleaseMode
from fedcondense.config.study import Study
from fedcondense.errors import ContributionRejected
from fedcondense.exchange.contribution import Payload
from fedcondense.exchange.guarantee import Account, Cumulative
from fedcondense.exchange.record_words import ASSUMPTIONS
from fedcondense.exchange.release_record import (
    STUDIED,
    Facts,
    Refusal,
    build_record,
    check_record,
)
from fedcondense.exchange.strict_json import read_strictly
from fedcondense.exchange.terms import LARGEST_CONTENTS, terms_of

STUDY, PRIVATE = small_study(), private_study()
PAYLOAD = payload_of(STUDY)
SUM = Cumulative("9.25", "0.00001", Unit.PATIENT)
GUARANTEED = facts_of(account=Account(guarantee_of(), SUM, HEAD))

Record = dict[str, Any]


@lru_cache
def set_of(study: Study) -> Payload:
    return payload_of(study)


def record_of(study=STUDY, facts: Facts | None = None, purpose: str = "release") -> Record:
    if facts is None:
        facts = facts_of() if study is STUDY else GUARANTEED
    return build_record(set_of(study), terms_of(study), purpose=purpose, facts=facts)


def is_read(
    record: Record,
    study=STUDY,
    *,
    payload: Payload | None = None,
    purpose: str = "release",
    round: int = 1,
) -> bool:
    """Whether a reader takes the record, as it stands on the wire, for that of the payload."""
    read = read_strictly(canonical(record))
    terms, payload = terms_of(study), payload or set_of(study)
    try:
        check_record(read, payload, terms, purpose=purpose, round=round)
    except ContributionRejected as rejected:
        return rejected.reason != "record"
    return True


def changed(record: Record, path: str, value: Any) -> Record:
    """A copy in which the field at `path`, of keys and places in lists, is `value`."""
    *way, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    whole = inner = copy.deepcopy(record)
    for part in way:
        inner = inner[part]
    inner[last] = value
    return whole


def leaves(value: Any, path: str = "") -> list[str]:
    """The paths of everything in a record that is not made of parts."""
    if isinstance(value, str | int | None) or not value:
        return [path.removeprefix("/")]
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    return [leaf for key, part in parts for leaf in leaves(part, f"{path}/{key}")]


def test_a_record_without_a_guarantee_is_this_and_nothing_else():
    assert record_of() == {
        "attempts": 1,
        "audits": {"membership": "not-run", "memorisation": "passed", "provenance": "passed"},
        "classes_left_out": [],
        "data_accesses": 1,
        "date": "2026-11-21",
        "declared": {"images": 5000, "patients": 4000},
        "images": 3,
        "images_per_class": 3,
        "method": "idm",
        "partition": 2,
        "payload_sha256": PAYLOAD.sha256,
        "privacy": {
            "cumulative_delta": None,
            "cumulative_epsilon": "not bounded",
            "cumulative_unit": None,
            "ledger_head": HEAD,
            "mode": "none",
        },
        "public_inputs": [],
        "purpose": "release",
        "recipients": (
            "the study's server, and united with the sets of other sites all sites of the study"
        ),
        "refusals": [],
        "residual_risk": (
            "Nothing bounds what an attack that was not run could learn about a patient."
        ),
        "resolution": [1, 16, 16],
        "retention": (
            "a site's set until the global set is made, the global set as the contract says"
        ),
        "round": 1,
        "software": "fedcondense 0.1.0",
        "start": "noise",
        "statement": (
            "Contains 3 synthetic images optimised from 5000 records; started from noise; "
            "no original image is included. No formal privacy guarantee. "
            "Empirical audit: provenance passed, memorisation passed, membership not run. "
            "A passed audit bounds only the attacks run. "
            "Treat as personal data under contract."
        ),
        "study_digest": STUDY.digest,
        "verdict": "passed",
        "version": 2,
        "withdrawal": (
            "A withdrawn patient cannot be removed from an issued set; "
            "the next round is reissued without."
        ),
    }


def test_a_record_with_a_guarantee_differs_in_what_it_claims():
    record, plain = record_of(PRIVATE), record_of()

    assert record.keys() == plain.keys()
    assert {key for key in plain if record[key] != plain[key]} == {
        "method",
        "privacy",
        "public_inputs",
        "residual_risk",
        "statement",
        "study_digest",
    }
    assert record["method"] == "idm (dp-embed)"
    assert record["public_inputs"] == ["random feature maps from the study's public seed"]
    assert record["residual_risk"].startswith("The guarantee covers one patient with all images.")
    assert record["statement"] == (
        "Contains 3 synthetic images optimised from 5000 records; started from noise; "
        "no original image is included. "
        "(7.99613, 0.00001)-DP, unit patient, add/remove, accountant prv (opacus 1.6.0), "
        "1 ledger row, public assumptions as listed. "
        "Any attacker, whatever else is known, finds at most 7.7 % of members at a false positive "
        "rate of 0.1 % and 25.5 % at 1 %, with an AUC of at most 0.881. "
        "Empirical audit: provenance passed, memorisation passed, membership not run. "
        "A passed audit bounds only the attacks run. Treat as personal data under contract."
    )


def test_the_part_privacy_says_all_that_a_reader_needs_to_count_again():
    block = record_of(PRIVATE)["privacy"]

    assert len(block.pop("assumptions")) == 10
    assert block == {
        "accountant": "prv",
        "accountant_version": "opacus 1.6.0",
        "attacker": {
            "auc": "0.8806",
            "tpr_at_fpr_one_percent": "0.2546",
            "tpr_at_fpr_tenth_percent": "0.07665",
        },
        "cumulative_delta": "0.00001",
        "cumulative_epsilon": "9.25",
        "cumulative_unit": "patient",
        "delta": "0.00001",
        "epsilon": "7.99613",
        "images_per_patient": None,
        "ledger_head": HEAD,
        "mode": "dp-embed",
        "noise": "a secret generator seeded by the operating system, never the study's seed",
        "relation": "add/remove",
        "rows": [{"mechanism": "class-embeddings", "q": "1", "sigma": "0.601", "steps": 1}],
        "unit": "patient",
    }


@pytest.mark.parametrize(
    ("study", "facts"),
    [
        (STUDY, facts_of()),
        (STUDY, facts_of(declared=None)),
        (STUDY, facts_of(declared=Declared(images=1))),
        (STUDY, facts_of(membership="passed", attempts=10, accesses=12_000)),
        (PRIVATE, GUARANTEED),
        (PRIVATE, replace(GUARANTEED, membership="passed")),
        (PRIVATE, replace(GUARANTEED, account=Account(guarantee_of(), ledger_head=HEAD))),
    ],
)
def test_what_is_written_is_read(study, facts):
    assert is_read(record_of(study, facts), study)


def test_every_leaf_of_a_record_is_protected_by_being_rebuilt_or_has_a_form():
    """Put into any leaf, a word of nobody's and an enormous number are both refused."""
    for study in (STUDY, PRIVATE):
        record = record_of(study)
        for path in leaves(record):
            for spoilt in ("Jane Doe", 10**15, []):
                other = changed(record, path, spoilt)
                assert canonical(other) == canonical(record) or not is_read(other, study), path


@pytest.mark.parametrize("study", [STUDY, PRIVATE])
def test_an_unknown_key_anywhere_is_refused(study):
    record = record_of(study)
    objects = ["audits", "declared", "privacy"]
    objects += ["privacy/attacker", "privacy/rows/0"] if study is PRIVATE else []

    assert not is_read(record | {"comment": "Jane Doe"}, study)
    for path in objects:
        assert not is_read(changed(record, f"{path}/comment", "Jane Doe"), study), path


@pytest.mark.parametrize("study", [STUDY, PRIVATE])
def test_a_missing_key_anywhere_is_refused(study):
    record = record_of(study)
    for path in leaves(record):
        *way, last = path.split("/")
        if last.isdigit():
            continue
        spoilt = inner = copy.deepcopy(record)
        for part in way:
            inner = inner[int(part) if part.isdigit() else part]
        del inner[last]
        assert not is_read(spoilt, study), path


def test_a_record_of_another_payload_is_refused():
    assert not is_read(record_of(), payload=payload_of(STUDY, seed=1))


def test_a_record_of_another_round_is_refused():
    assert not is_read(record_of(), round=2)
    assert is_read(record_of(facts=facts_of(round=2)), round=2)


def test_a_record_of_another_study_is_refused():
    assert not is_read(record_of(), small_study(seed=1))


@pytest.mark.parametrize(
    ("written", "read"), [("release", "simulation"), ("simulation", "release")]
)
def test_a_record_for_another_purpose_is_refused(written, read):
    assert not is_read(record_of(purpose=written), purpose=read)


def test_a_simulation_has_no_recipients():
    assert record_of(purpose="simulation")["recipients"] == "nobody: a study on one machine"


def test_a_record_without_a_guarantee_is_refused_where_the_study_asks_for_one():
    plain = record_of()
    claimed = plain | {"study_digest": PRIVATE.digest}

    assert not is_read(claimed, PRIVATE)
    assert not is_read(changed(record_of(PRIVATE), "privacy", plain["privacy"]), PRIVATE)


def test_a_record_that_claims_a_guarantee_is_refused_where_the_study_asks_for_none():
    assert not is_read(record_of() | {"privacy": record_of(PRIVATE)["privacy"]})
    assert not is_read(changed(record_of(), "privacy/cumulative_epsilon", "1"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("date", "2026-11-31"),
        ("date", "2026-1-1"),
        ("date", "20261121"),
        ("date", "1999-01-01"),
        ("software", "fedcondense"),
        ("software", "Fedcondense 0.1.0"),
        ("software", "fedcondense 0.1.0 of Jane Doe"),
        ("attempts", 0),
        ("attempts", 11),
        ("data_accesses", -1),
        ("declared/images", 0),
        ("declared/patients", 0),
        ("declared/patients", "4000"),
        ("audits/memorisation", "not-run"),
        ("audits/memorisation", "refused"),
        ("audits/memorisation", "skipped"),
        ("audits/membership", "refused"),
        ("audits/provenance", "refused"),
        ("verdict", "refused"),
        ("refusals", ["ledger"]),
        ("privacy/ledger_head", None),
        ("privacy/ledger_head", HEAD.upper()),
        ("privacy/ledger_head", HEAD[1:]),
        ("privacy/mode", "dp-embed"),
        ("version", 1),
        ("version", 3),
    ],
)
def test_a_field_out_of_its_range_is_refused(field, value):
    assert not is_read(changed(record_of(), field, value))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epsilon", "8.00001"),
        ("epsilon", "0"),
        ("epsilon", "-1"),
        ("epsilon", "nan"),
        ("epsilon", "1e0"),
        ("epsilon", "7.996130"),
        ("epsilon", 8),
        ("delta", "0.000011"),
        ("delta", "0"),
        ("accountant", "gdp"),
        ("accountant", "none"),
        ("accountant_version", "opacus"),
        ("accountant_version", "Jane Doe"),
        ("rows", []),
        ("rows/0/mechanism", "experts"),
        ("rows/0/mechanism", "images"),
        ("rows/0/sigma", "0"),
        ("rows/0/sigma", "1000000"),
        ("rows/0/sigma", None),
        ("rows/0/q", "0"),
        ("rows/0/q", "1.1"),
        ("rows/0/steps", 0),
        ("rows/0/steps", -1),
        ("rows/0/steps", "1"),
        ("cumulative_epsilon", "-1"),
        ("cumulative_epsilon", "inf"),
        ("cumulative_epsilon", "not bounded"),
        ("cumulative_epsilon", None),
        ("cumulative_delta", "0"),
        ("cumulative_delta", None),
        ("cumulative_delta", "1.5"),
        ("cumulative_unit", None),
        ("cumulative_unit", "films"),
        ("unit", "image"),
        ("unit", "films"),
        ("relation", "replace"),
        ("noise", "the study's seed"),
        ("assumptions", []),
        ("assumptions/0", "none"),
        ("images_per_patient", 4),
        ("mode", "none"),
        ("mode", "dp-sgd"),
        ("attacker", {}),
        ("attacker/auc", "0.49"),
        ("attacker/auc", "1.1"),
        ("attacker/tpr_at_fpr_one_percent", "0.009"),
        ("attacker/tpr_at_fpr_one_percent", 1),
        ("attacker/tpr_at_fpr_tenth_percent", "0.0009"),
        ("attacker/tpr_at_fpr_tenth_percent", "2"),
    ],
)
def test_a_field_of_the_guarantee_out_of_its_range_is_refused(field, value):
    assert not is_read(changed(record_of(PRIVATE), f"privacy/{field}", value), PRIVATE)


def test_at_most_sixty_four_rows_stand_in_a_record():
    row = guarantee_of().rows[0]
    many = guarantee_of(rows=(row,) * 65)
    facts = replace(GUARANTEED, accesses=65, account=Account(many, ledger_head=HEAD))

    assert not is_read(record_of(PRIVATE, facts), PRIVATE)


def test_every_access_has_its_row():
    assert not is_read(record_of(PRIVATE, replace(GUARANTEED, accesses=2)), PRIVATE)
    assert not is_read(record_of(PRIVATE, replace(GUARANTEED, accesses=0)), PRIVATE)


@pytest.mark.parametrize(
    "declared", [None, Declared(images=5000), Declared(images=5000, patients=100_000)]
)
def test_noise_is_planned_from_declared_units_of_which_delta_names_less_than_one(declared):
    # delta 1e-5 for 100,000 patients would allow to publish the film of one of them
    assert not is_read(record_of(PRIVATE, replace(GUARANTEED, declared=declared)), PRIVATE)


def test_under_a_smaller_request_the_same_guarantee_is_too_much():
    smaller = private_study(privacy={"epsilon": 7.99})

    assert not is_read(record_of(smaller, GUARANTEED), smaller)


def test_a_request_that_no_decimal_string_holds_is_compared_rounded():
    third = private_study(privacy={"epsilon": 8 - 1 / 3e7, "delta": 1 / 99_999.7})
    guarantee = guarantee_of(epsilon="8", delta="0.0000100001")
    facts = replace(GUARANTEED, account=Account(guarantee, ledger_head=HEAD))

    assert is_read(record_of(third, facts), third)


@pytest.mark.parametrize("refusal", sorted(STUDIED - {Refusal.REAL_START, Refusal.CORESET}))
def test_a_refusal_stands_in_a_simulation_only_and_beside_what_it_follows_from(refusal):
    facts = facts_of(
        refusals=(refusal,),
        memorisation={
            Refusal.AUDIT_MISSING: "not-run",
            Refusal.AUDIT_MEMORISATION: "refused",
        }.get(refusal, "passed"),
        membership="refused" if refusal is Refusal.AUDIT_MEMBERSHIP else "passed",
    )
    record = record_of(facts=facts, purpose="simulation")

    assert is_read(record, purpose="simulation")
    assert not is_read(changed(record, "purpose", "release"))
    assert not is_read(record_of(facts=facts))
    assert record["verdict"] == "refused"
    assert record["residual_risk"] == "The gate refused this set: it may show single patients."
    assert record["statement"].endswith(
        "For study on one machine, not for release. Treat as personal data under contract."
    )
    assert "no original image is included" not in record["statement"]


@pytest.mark.parametrize(
    "facts",
    [
        facts_of(memorisation="refused"),
        facts_of(membership="refused"),
        facts_of(refusals=(Refusal.AUDIT_MEMORISATION,)),
        facts_of(refusals=(Refusal.AUDIT_MEMBERSHIP,)),
        facts_of(memorisation="not-run"),
        facts_of(memorisation="not-run", refusals=(Refusal.DUPLICATE,)),
        facts_of(membership="passed", refusals=(Refusal.AUDIT_MISSING,)),
    ],
)
def test_audits_and_refusals_that_contradict_each_other_are_refused(facts):
    assert not is_read(record_of(facts=facts, purpose="simulation"), purpose="simulation")


def test_what_the_ledger_does_not_bear_out_is_no_guarantee_even_in_a_simulation():
    unpaid = replace(GUARANTEED, refusals=(Refusal.LEDGER,))
    none = replace(unpaid, account=Account(guarantee=None, ledger_head=HEAD))
    nobody = replace(unpaid, account=Account(guarantee=None))

    assert not is_read(record_of(PRIVATE, unpaid, "simulation"), PRIVATE, purpose="simulation")
    for facts in (none, nobody):
        record = record_of(PRIVATE, facts, "simulation")
        assert is_read(record, PRIVATE, purpose="simulation")
        assert "No formal privacy guarantee." in record["statement"]
        assert record["privacy"]["mode"] == "dp-embed"


def test_soft_labels_and_a_step_size_are_named_where_they_leave():
    study = learning_study()

    record = record_of(study, facts_of())

    assert is_read(record, study)
    assert record["soft_labels"] == "float16"
    assert record["student_lr"] == payload_of(study).student_rate
    for key in ("soft_labels", "student_lr"):
        assert not is_read({name: of for name, of in record.items() if name != key}, study)


def test_other_units_and_modes_have_words_of_their_own():
    image = private_study(privacy={"unit": "image"})
    sgd = private_study(privacy={"mode": "dp-sgd"}, distill={"method": "mtt"})
    rows = (replace(guarantee_of().rows[0], mechanism="experts", q="0.2", steps=586),)
    of_images = replace(
        GUARANTEED, account=Account(guarantee_of(unit=Unit.IMAGE), ledger_head=HEAD)
    )
    of_experts = replace(GUARANTEED, account=Account(guarantee_of(rows=rows), ledger_head=HEAD))

    first, second = record_of(image, of_images), record_of(sgd, of_experts)

    assert is_read(first, image)
    assert is_read(second, sgd)
    assert first["residual_risk"].startswith("The guarantee covers one image: k images")
    assert (second["method"], second["public_inputs"]) == ("mtt", [])
    assert second["privacy"]["images_per_patient"] == 4
    assert second["privacy"]["assumptions"] != first["privacy"]["assumptions"]


def test_a_public_start_is_a_public_input():
    payload, terms = payload_of(PRIVATE), replace(terms_of(PRIVATE), start="public")
    payload = replace(payload, provenance=replace(payload.provenance, start="public"))

    record = build_record(payload, terms, purpose="release", facts=GUARANTEED)

    check_record(record, payload, terms, purpose="release", round=1)
    assert record["public_inputs"][1] == "public images"
    assert "; started from public images; no original image" in record["statement"]


def test_neither_a_planted_name_nor_a_number_that_only_the_site_knows_is_in_the_record():
    """What the gate is shown may hold anything; what leaves is a closed list."""
    planted = paid_for(PRIVATE, head=HEAD)
    record = decided(payload_of(PRIVATE), PRIVATE, ReleaseMode.ENFORCED, paid=planted).record
    words = json.dumps(record)

    assert not [of for of in ("Jane", "Doe", "1.2.840", "/data", ".dcm", "0412") if of in words]
    assert set(record) == set(record_of(PRIVATE))


def test_the_largest_record_leaves_room_in_the_contents():
    row = guarantee_of().rows[0]
    worst = replace(row, sigma="999999", q="0.123456", steps=2**53)
    facts = replace(
        GUARANTEED,
        accesses=64,
        declared=DECLARED,
        account=Account(guarantee_of(rows=(worst,) * 64), SUM, HEAD),
    )

    assert len(canonical(record_of(PRIVATE, facts))) < LARGEST_CONTENTS / 4


@given(attempts=st.integers(1, 10), images=st.integers(1, 10**9), round=st.integers(1, 10**6))
def test_any_record_in_range_is_canonical_and_reads_as_itself(attempts, images, round):
    facts = facts_of(attempts=attempts, declared=Declared(images=images), round=round)

    record = record_of(facts=facts)

    assert read_strictly(canonical(record)) == record
    assert is_read(record, round=round)


def test_a_record_claims_nothing_of_when_a_reply_arrives():
    for assumptions in ASSUMPTIONS.values():
        [said] = [words for words in assumptions if "metric" in words]
        assert said.endswith("when a reply arrives is not covered")
        assert not any("timing" in words for words in assumptions)
