from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_kit import canonical, learning_study, small_study

from fedcondense.exchange.terms import (
    decimal_number,
    decimal_text,
    lower_text,
    rate_number,
    rate_text,
    recipe_of,
    terms_of,
    upper_text,
)


@pytest.mark.parametrize(
    ("number", "text"), [(-4.0, "-4"), (0.25, "0.25"), (1e-5, "0.00001"), (16.0, "16"), (0.0, "0")]
)
def test_a_decimal_string_is_the_shortest_without_exponent(number, text):
    assert decimal_text(number) == text


@given(st.decimals(-16, 16, places=6).map(float))
def test_a_decimal_string_reads_back_as_the_same_number(number):
    assert decimal_number(decimal_text(number)) == number


@pytest.mark.parametrize(
    "text", ["", "-4.0", "+4", "04", ".5", "1e0", "nan", "inf", "-0", "1_0", " 1", "٣", "9" * 400]
)
def test_a_number_in_any_other_form_is_refused(text):
    with pytest.raises(ValueError, match=r"\w"):
        decimal_number(text)


def test_the_body_is_padded_to_the_studys_ceiling():
    terms = terms_of(small_study())

    # 4 bytes of length, 64 KiB of contents, 2 classes x 3 images of 16 x 16 pixels and a label
    assert terms.body_bytes == 4 + 65_536 + 6 * (256 + 1)


def test_the_recipe_holds_no_floating_point_number():
    recipe = recipe_of(small_study(image={"size": 16, "mean": 0.485, "std": 0.229}))

    assert recipe["image"]["mean"] == "0.485"
    assert b"." not in canonical(recipe).replace(b'"0.485"', b"").replace(b'"0.229"', b"")


def test_another_evaluation_length_is_another_recipe():
    shorter = small_study(evaluation={"steps": 100})

    assert recipe_of(shorter) != recipe_of(small_study())


def test_the_ceiling_counts_two_bytes_of_soft_label_per_class_and_image():
    study = learning_study()

    # as above, and 6 rows of 2 classes in float16
    assert terms_of(study).body_bytes == 4 + 65_536 + 6 * (256 + 1 + 4)
    assert terms_of(study).body_bytes == 4 + 65_536 + study.largest_payload


def test_the_terms_say_what_the_study_learns():
    hard = terms_of(small_study(distill={"method": "mtt"}))

    assert (terms_of(learning_study()).soft_labels, terms_of(learning_study()).learns_rate) == (
        True,
        True,
    )
    assert (hard.soft_labels, hard.learns_rate) == (False, True)
    assert (terms_of(small_study()).soft_labels, terms_of(small_study()).learns_rate) == (
        False,
        False,
    )


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0.01, "0.01"),
        (1e-5, "0.00001"),
        (1e-8, "0.00000001"),
        (1.23456789e-8, "0.0000000123457"),
        (1 / 3, "0.333333"),
        (10.0, "10"),
        (9.9999999, "10"),
    ],
)
def test_a_step_size_travels_with_six_significant_digits(rate, text):
    assert rate_text(rate) == text


@given(st.floats(1e-8, 10))
def test_a_step_size_is_rounded_once_and_then_reads_back_as_itself(rate):
    text = rate_text(rate)

    assert rate_number(text) == pytest.approx(rate, rel=5.1e-6)
    assert rate_text(rate_number(text)) == text


NO_RATES = [0.0, -0.01, 9.9e-9, 10.1, float("nan"), float("inf"), -float("inf")]


@pytest.mark.parametrize("rate", NO_RATES)
def test_what_is_no_step_size_is_not_written(rate):
    with pytest.raises(ValueError, match="not a step size"):
        rate_text(rate)


@pytest.mark.parametrize(
    "text", ["0", "-0.01", "0.0000000099", "10.1", "999999", "1e-05", "nan", "inf", "", "0.010"]
)
def test_what_is_no_step_size_is_not_read(text):
    with pytest.raises(ValueError, match=r"^not a"):
        rate_number(text)


@pytest.mark.parametrize(
    ("bound", "upper", "lower"),
    [
        (8.0, "8", "8"),
        (7.9961201, "7.99613", "7.99612"),
        (1e-5, "0.00001", "0.00001"),
        (1 / 3, "0.333334", "0.333333"),
        (999_999.0, "999999", "999999"),
        (1e-14, "0.00000000000001", "0.00000000000001"),
    ],
)
def test_a_bound_travels_with_six_digits_rounded_to_its_own_side(bound, upper, lower):
    assert (upper_text(bound), lower_text(bound)) == (upper, lower)


@given(st.floats(1e-14, 999_999))
def test_a_rounded_bound_is_a_decimal_string_that_still_bounds(bound):
    assert decimal_number(lower_text(bound)) <= bound <= decimal_number(upper_text(bound))
    assert upper_text(decimal_number(upper_text(bound))) == upper_text(bound)


def test_an_upper_bound_smaller_than_a_decimal_string_holds_is_the_smallest_one():
    assert upper_text(0.0) == upper_text(1e-30) == "0.00000000000001"


@pytest.mark.parametrize("bound", [-1.0, 1e6, float("inf"), float("nan")])
def test_what_bounds_nothing_is_not_written(bound):
    for write in (upper_text, lower_text):
        with pytest.raises(ValueError, match="not a bound"):
            write(bound)
    with pytest.raises(ValueError, match="not a bound"):
        lower_text(0.0)
