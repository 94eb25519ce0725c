from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcondense.exchange.strict_json import has_shape, read_strictly
from fedcondense.files.storage import canonical_json

LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8)
VALUES = st.dictionaries(
    st.text(max_size=4), LEAVES | st.lists(LEAVES | st.dictionaries(st.text(), LEAVES), max_size=3)
)


@given(VALUES)
def test_what_the_canonical_writer_writes_is_read_back(value):
    assert read_strictly(canonical_json(value)) == value


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b'{"a":1,"a":2}', "duplicate key"),
        (b'{"a":{"b":1,"b":1}}', "duplicate key below"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":Infinity}', "infinity"),
        (b'{"a":-Infinity}', "minus infinity"),
        (b'{"a":1.5}', "float"),
        (b'{"a":1e3}', "exponent"),
        (b'{"a":-0}', "minus zero"),
        (b'{"a":9007199254740993}', "above 2^53"),
        (b'{"a":' + b"9" * 5000 + b"}", "a number too long to convert"),
        ('{"a":"ä"}'.encode(), "not ASCII"),
        (b'{"a":"\\u0041"}', "an escape that is not needed"),
        (b'{"a":"\\u00E4"}', "an escape in capitals"),
        (b'{"a": 1}', "space"),
        (b'{"a":1}\n', "a line end"),
        (b'{"b":1,"a":1}', "unsorted"),
        (b'{"a":' * 6 + b"{}" + b"}" * 6, "seven levels"),
        (b"[" * 60_000, "nesting that would exhaust a parser"),
        (b'{"a":"[[[[[[["', "cut off"),
        (b"[]", "an array"),
        (b"1", "a number"),
        (b"", "nothing"),
        (b"\x80\x04\x95", "pickle"),
    ],
)
def test_any_other_text_is_refused(text, fault):
    with pytest.raises(ValueError, match=r"\w"):
        read_strictly(text)


def test_a_hostile_string_without_an_end_takes_no_quadratic_time():
    text = b'"' + b'\\"' * 32_000 + b"\\"  # a quadratic search needs seconds

    began = time.perf_counter()
    with pytest.raises(ValueError, match=r"\w"):
        read_strictly(text)

    assert time.perf_counter() - began < 0.5


def test_six_levels_and_brackets_in_strings_are_fine():
    text = b'{"a":' * 5 + b'{"b":"[[[[\\"[["}' + b"}" * 5

    assert canonical_json(read_strictly(text)) == text


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ({"a": 1, "b": "x"}, True),
        ({"a": 1, "b": None}, True),
        ({"a": True, "b": "x"}, False),
        ({"a": 1}, False),
        ({"a": 1, "b": "x", "c": 1}, False),
        ([], False),
    ],
)
def test_a_shape_is_exactly_its_keys_and_types(value, fits):
    assert has_shape(value, {"a": int, "b": (str, type(None))}) is fits
