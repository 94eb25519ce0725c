from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedcondense.errors import ContributionRejected
from fedcondense.exchange.rejection import Reason, demand
from fedcondense.exchange.release_record import STUDIED, Refusal
from fedcondense.exchange.sealing import LARGEST_MANIFEST, MAGIC, SEALING_BYTES
from fedcondense.exchange.soft_labels import ROW_TOLERANCE
from fedcondense.exchange.terms import (
    LARGEST_CONTENTS,
    LARGEST_RATE,
    LEAST_RATE,
    decimal_text,
)

PAGE = Path(__file__).parents[2] / "docs" / "ref-contribution-format.md"


def test_the_reasons_are_those_of_the_page_in_its_order():
    listed = re.findall(r"^\|[^|]*\| `(\w+)` \| [^|]+ \|$", PAGE.read_text(), re.MULTILINE)

    assert listed == [reason.value for reason in Reason]


def test_each_reason_is_one_word():
    assert all(re.fullmatch("[a-z]+", reason) for reason in Reason)


def test_the_page_names_every_refusal_of_the_gate():
    assert all(f"`{refusal}`" in PAGE.read_text() for refusal in Refusal)


def test_the_pages_sentences_are_those_of_the_record(wire):
    page, said = PAGE.read_text(), wire.released().record["statement"]

    general = said.replace("Contains 3 ", "Contains n ").replace("from 5000 ", "from N ")

    assert general.replace("membership not run", "membership [verdict]") in page


def test_the_pages_numbers_are_those_of_the_code():
    page = PAGE.read_text()

    assert MAGIC.decode() in page
    assert f"at most {LARGEST_MANIFEST:,}" in page
    assert f"at most {LARGEST_CONTENTS:,}" in page
    assert f"`body_bytes` + {SEALING_BYTES:,}" in page
    assert f"from {decimal_text(LEAST_RATE)} to {decimal_text(LARGEST_RATE)} if" in page
    assert f"sum to 1 within {decimal_text(ROW_TOLERANCE)}" in page


def test_the_page_names_what_a_record_says_of_soft_labels_and_a_step_size(learning):
    record = learning.released().record

    named = re.findall(r"^\| `(\w+)` \| .*the key MUST be there", PAGE.read_text(), re.MULTILINE)

    assert set(named) == {"soft_labels", "student_lr"} <= record.keys()


def test_what_a_study_may_look_at_is_a_choice_and_no_defect():
    defects = {Refusal.MISSING, Refusal.CONTRADICTORY, Refusal.NOT_FINITE, Refusal.CONSTANT}

    assert set(Refusal) - STUDIED == defects


@pytest.mark.parametrize("holds", [False, None, 0, ""])
def test_a_demand_that_does_not_hold_is_a_rejection(holds):
    with pytest.raises(ContributionRejected, match=r"^contribution rejected: shape$") as rejected:
        demand(holds, Reason.SHAPE)

    assert rejected.value.reason == "shape"
    assert "ref-contribution-format.md" in rejected.value.hint
