from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_kit import canonical, small_study

from fedcondense.exchange.terms import decimal_number, decimal_text, recipe_of, terms_of


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
