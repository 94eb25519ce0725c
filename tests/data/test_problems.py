from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcondense.data.problems import (
    GENERAL_HINT,
    Problem,
    UnusableImages,
    naming_files,
    refusal,
    row_ranges,
)
from fedcondense.errors import DataError


def _problem(row: int, reason: str = "the file is empty", hint: str = "export again") -> Problem:
    return Problem(row, reason, hint, f"Mustermann-{row}.png")


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([7], "row 7"),
        ([7, 8], "rows 7-8"),
        ([1, 3, 4, 5, 9], "rows 1, 3-5, 9"),
        (list(range(1, 40, 2)), "rows 1, 3, 5, 7, 9, 11, 13, 15 and 12 more"),
    ],
)
def test_row_numbers_are_told_in_short(rows, text):
    assert row_ranges(rows) == text


@given(st.sets(st.integers(1, 60), min_size=1))
def test_no_row_is_lost_among_the_ranges(rows):
    text = row_ranges(sorted(rows))

    listed, _, more = text.removeprefix("rows ").removeprefix("row ").partition(" and ")
    ends = [part.partition("-") for part in listed.split(", ")]
    told = sum(int(last or first) - int(first) + 1 for first, _, last in ends)
    assert told + int(more.removesuffix(" more") or 0) == len(rows)


def test_the_error_tells_every_reason_with_its_rows_and_no_file():
    problems = [_problem(9), _problem(2), _problem(3), _problem(4, "damaged or truncated")]

    error = refusal(problems, 12)

    assert error.code == "FC202"
    assert error.message == (
        "4 of 12 images cannot be used: the file is empty: rows 2-3, 9; damaged or truncated: row 4"
    )
    assert "Mustermann" not in str(error) + repr(error) + repr(problems)


def test_files_are_named_on_a_terminal_alone():
    error = refusal([_problem(row) for row in (4, 2, 3, 1)] + [Problem(6, "no path")], 6)

    with pytest.raises(DataError) as caught, naming_files():
        raise error

    assert not isinstance(caught.value, UnusableImages)
    assert caught.value.message == (
        "5 of 6 images cannot be used: Mustermann-1.png: the file is empty; "
        "Mustermann-2.png: the file is empty; Mustermann-3.png: the file is empty; and 2 more"
    )


def test_a_row_without_a_file_is_told_by_its_number_there():
    assert refusal([Problem(6, "no path")], 6).named().message.endswith("used: row 6: no path")


def test_a_common_hint_is_kept_and_many_become_a_general_one():
    assert refusal([_problem(1), _problem(2)], 2).hint == "export again"
    assert refusal([_problem(1), _problem(2, hint="another")], 2).hint == GENERAL_HINT
