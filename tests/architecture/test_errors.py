"""Every error has one code for ever, stands in the drawn tree and has its section in the docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedcondense import errors
from fedcondense.errors import FedcondenseError

PAGE = (Path(__file__).parents[2] / "docs" / "ref-errors.md").read_text(encoding="utf-8")
LIVE, _, RETIRED = PAGE.partition("## Retired codes")
CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type)
    and issubclass(value, FedcondenseError)
    and value is not FedcondenseError
]


def sections() -> dict[str, str]:
    """By heading, `FC101 SettingsError`: the text below it."""
    parts = re.split(r"^### (FC\d{3} \w+)$", LIVE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_no_two_errors_have_one_code():
    codes = [kind.code for kind in CLASSES]

    assert len(set(codes)) == len(codes) > 10
    assert all(re.fullmatch(r"FC[1-9]\d\d", code) for code in codes)


def test_the_tree_in_the_docstring_is_that_of_the_classes():
    drawn = re.findall(r"[├└]── (\w+) +(FC\d{3})(?:  exit (\d))?$", errors.__doc__ or "", re.M)

    assert drawn == [
        (kind.__name__, kind.code, "" if kind.exit_code == 1 else str(kind.exit_code))
        for kind in CLASSES
    ]


def test_every_error_has_its_section_in_order_and_nothing_else_has_one():
    assert list(sections()) == [f"{kind.code} {kind.__name__}" for kind in CLASSES]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.code)
def test_a_section_says_exit_code_meaning_cause_and_remedy(kind):
    text = sections()[f"{kind.code} {kind.__name__}"]

    named = re.findall(r"^- \*\*(.+?):\*\* (\S.*)$", text, re.MULTILINE)

    assert [name for name, _ in named] == ["Exit code", "Meaning", "Usual cause", "What to do"]
    assert named[0][1].split(".")[0] == str(kind.exit_code)


def test_no_retired_code_is_used_again():
    retired = set(re.findall(r"FC\d{3}", RETIRED))

    assert RETIRED
    assert retired.isdisjoint(kind.code for kind in CLASSES)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.code)
def test_an_error_keeps_message_and_hint(kind):
    if kind is errors.ContributionRejected:
        error = kind("size")
        assert (error.reason, error.message) == ("size", "contribution rejected: size")
    else:
        error = kind("what is wrong", hint="what to do")
        assert (error.message, error.hint) == ("what is wrong", "what to do")
    assert str(error) == error.message
