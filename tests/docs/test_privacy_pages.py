"""What the pages about the gate say is what the gate and its pages do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedcondense.config.site import ReleasePolicy
from fedcondense.privacy import audit, membership, memorisation, plain_words, record_page
from fedcondense.privacy.attacker import allowed_by_gaussian

HOME = Path(__file__).parents[2]
HOW_TO = (HOME / "docs/how-to-read-a-release-record.md").read_text(encoding="utf-8")
WHY = (HOME / "docs/explanation-privacy.md").read_text(encoding="utf-8")
TEMPLATE = (HOME / "fedcondense/privacy/templates/release_record.html").read_text(encoding="utf-8")
SIGMA = {"1": 3.731, "3": 1.391, "8": 0.6003, "10": 0.500}  # of the footnote, delta 1e-5


@pytest.mark.parametrize("number", [3, 4, 5, 6])
def test_each_section_that_a_reader_is_led_through_stands_on_the_page(number: int):
    [title] = re.findall(rf"^### {number}\. (.+)$", HOW_TO, re.MULTILINE)

    assert f"<h2>{title}</h2>" in TEMPLATE


@pytest.mark.parametrize(
    "words",
    [
        "This set must not leave.",
        "This set may leave",
        "if you approve it",
        "you have approved it",
        "Where the images come from",
        "Closer to patients used than to others?",
        "Can it be told who took part?",
        "Formal guarantee",
        "All that these patients were ever used for comes to epsilon",
        "not bounded",
        "What the proof assumes",
        "What remains",
        "Who gets it",
        "How long",
        "Withdrawal",
    ],
)
def test_what_the_reader_is_told_to_look_for_stands_on_the_page(words: str):
    assert words.lower() in HOW_TO.lower()
    assert words.lower() in TEMPLATE.lower()


def test_the_lines_that_are_read_aloud_are_written_so():
    read = "pictures closest to the patients used"

    assert read in HOW_TO
    assert read in plain_words._SHARES["closer-than-held-out"]


def test_the_limits_that_the_pages_name_are_those_of_the_code():
    policy = ReleasePolicy()

    assert (policy.min_patients_per_class, policy.attempts, policy.held_out) == (100, 2, 0.2)
    assert (record_page.SMALL_CLASS, memorisation.SMALL_CLASS) == (200, 200)
    assert (memorisation.COPY, memorisation.LEVEL) == (0.98, 0.01)
    assert (membership.SHADOWS, membership.LEAST_SHADOWS) == (16, 8)
    assert (membership.LARGEST_AREA, membership.LARGEST_GAIN) == (0.55, 5)
    assert audit.LEAST_HELD_OUT == 0.2
    for said in ("**100** patients", "**200** images", "16 more sets (at least 8)", "above .55"):
        assert said in WHY
    for said in ("from .98 on", "fewer than 200 images", "allows (2)"):
        assert said in HOW_TO


@pytest.mark.parametrize("epsilon", SIGMA)
def test_what_any_attacker_may_reach_is_what_the_formulas_give(epsilon: str):
    [row] = re.findall(rf"^\| {epsilon} \| (.+) \|$", WHY, re.MULTILINE)
    tenth, one, area = (float(cell.strip(" %")) for cell in row.split("|"))

    allowed = allowed_by_gaussian(1 / SIGMA[epsilon])

    assert tenth == pytest.approx(100 * allowed.tpr_at_0_1_percent, abs=0.06)
    assert one == pytest.approx(100 * allowed.tpr_at_1_percent, abs=0.3)
    assert area == pytest.approx(allowed.auc, abs=6e-4)


def test_what_is_not_measured_yet_is_called_open_and_a_figure_says_where_it_is_from():
    table = WHY.split("## Measured later")[1].split("[^start]")[0]

    rows = re.findall(r"^\| (?!Question|-)(.+?) \| (.+?) \|$", table, re.MULTILINE)

    assert len(rows) >= 5
    assert all(answer.startswith("open") or "](results.md#" in answer for _, answer in rows)


def test_every_scenario_and_page_that_is_named_is_there():
    for text in (HOW_TO, WHY):
        for name in re.findall(r"simulations/\w+\.toml", text):
            assert (HOME / name).exists(), name
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert (HOME / "docs" / link).exists(), link
