from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcondense.exchange.release_record import Refusal
from fedcondense.privacy import plain_words
from fedcondense.privacy.findings import AuditResult, Finding, Verdict
from fedcondense.privacy.plain_words import REFUSALS, TRIED, said, telling
from fedcondense.privacy.release import AUDITS

CLASSES = ("normal", "pneumonia")


def finding(statistic: str = "closest", **changes) -> Finding:
    values = {
        "label": 1,
        "space": "pixels/whole",
        "value": 0.5,
        "low": None,
        "high": None,
        "threshold": 0.001,
        "p": 0.04,
        "n": 40,
        "verdict": Verdict.PASSED,
    }
    return Finding(statistic, **values | changes)


def test_every_refusal_and_every_audit_has_words():
    assert set(REFUSALS) == set(Refusal)
    assert tuple(TRIED) == AUDITS


@pytest.mark.parametrize("audit", AUDITS)
def test_every_statistic_that_an_audit_explains_has_words_for_the_officer(audit):
    path = Path(plain_words.__file__).with_name(f"{audit}.py")
    explained = re.findall(r"^- `([a-z-]+)`:", path.read_text(encoding="utf-8"), re.MULTILINE)

    for statistic in explained:
        assert f"{statistic}:" not in said(finding(statistic), CLASSES).found


def test_a_share_is_said_in_percent_with_its_interval_and_the_chance_of_it():
    of = said(finding("nearest-in-train", value=0.98, low=0.9, high=1.0, n=1200), CLASSES)

    assert of.about == "pneumonia, whole images, compared pixel by pixel"
    assert of.found == (
        "98.0 % of 1,200 pictures have their nearest radiograph among the patients used, the "
        "others among patients never seen (95 % interval 90.0 % to 100.0 %)"
    )
    assert of.limit == (
        "chance alone would give this with a probability of 1 in 25; refused below 1 in 1,000"
    )
    assert not of.refuses


def test_a_copy_is_refused_from_its_limit_on():
    of = said(
        finding("copy", label=None, value=0.99, threshold=0.95, p=None, verdict=Verdict.REFUSED),
        CLASSES,
    )

    assert of.about == "all classes, whole images, compared pixel by pixel"
    assert of.limit == "refused from 0.950 on"
    assert of.refuses


def test_a_statistic_without_words_of_its_own_is_shown_by_its_name():
    of = said(finding("new", space="shadows", low=0.5, high=0.56, p=None, threshold=0.55), CLASSES)

    assert of.about == "pneumonia, shadows"
    assert of.found == "new: 0.500, from 40 (95 % interval 0.500 to 0.560)"
    assert of.limit == "refused if the lower end of the interval is above 0.550"


@pytest.mark.parametrize(
    ("statistic", "alarms"), [("tpr-at-1.0%", "1.0 %"), ("tpr-at-0.1%", "0.1 %")]
)
def test_what_an_attacker_finds_is_said_beside_what_it_costs(statistic, alarms):
    values = {"space": "rmia", "value": 0.02, "low": 0.01, "high": 0.04, "p": None}
    of = said(finding(statistic, label=None, threshold=0.05, **values), CLASSES)

    assert of.about == ("all classes, by how much surer networks are of them than of others")
    assert of.found == (
        f"the attacker finds 2.0 % of those who took part when {alarms} of the others are named "
        "wrongly; of 40 patients (95 % interval 1.0 % to 4.0 %)"
    )
    assert of.limit == "refused if the lower end of the interval is above 5.0 %"


def test_an_area_is_said_as_a_choice_between_two():
    of = said(finding("auc", value=0.51, low=0.49, high=0.53, p=None, threshold=0.55), CLASSES)

    assert "picks the right one with a probability of 0.510 (0.5: guessing)" in of.found


def test_a_finding_without_a_limit_says_so():
    assert said(finding(threshold=None), CLASSES).limit == "nothing follows from it alone"


@pytest.mark.parametrize(
    ("p", "words"),
    [
        (0.31, "of 0.31;"),
        (0.1, "of 0.10;"),
        (0.004, "of 1 in 250;"),
        (0.01 / 87, "of 1 in 8,700;"),
        (1e-12, "of less than 1 in 1,000,000,000;"),
        (0.0, "of less than 1 in 1,000,000,000;"),
    ],
)
def test_a_small_probability_is_said_as_one_in_so_many(p, words):
    assert words in said(finding(p=p), CLASSES).limit


def test_of_a_refusing_audit_what_refuses_is_told_most_clearly_first():
    slight, clear = (finding(p=p, verdict=Verdict.REFUSED) for p in (0.0009, 1e-9))
    result = AuditResult.of("memorisation", [finding(), slight, clear], seconds=1.0, note="")

    assert telling(result, 6) == (clear, slight)
    assert telling(result, 1) == (clear,)


def test_of_a_passing_audit_the_nearest_miss_of_each_statistic_is_told():
    far, near = finding(p=0.5), finding(p=0.002)
    copy = finding("copy", value=0.6, threshold=0.95, p=None)
    rate = finding("rate", low=0.02, high=0.1, threshold=0.05, p=None)
    nothing = finding("nothing", threshold=None)
    result = AuditResult.of("memorisation", [far, nothing, copy, near, rate], seconds=1.0, note="")

    # .95 / .6 = 1.6 times from its limit, .002 / .001 = 2, .05 / .02 = 2.5
    assert telling(result, 6) == (copy, near, rate, nothing)


@given(value=st.floats(-1, 1), low=st.floats(-1, 1), p=st.none() | st.floats(0, 1))
def test_whatever_was_found_has_words_and_a_place(value, low, p):
    of = finding("copy", value=value, low=low, high=1.0, p=p)
    result = AuditResult.of("memorisation", [of], seconds=1.0, note="")

    assert telling(result, 1) == (of,)
    assert said(of, CLASSES).found.startswith("the closest of 40 pictures")
