from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_windowing

from fedcondense.data.grey import LookUp, Rendering, Window, WindowShape, render, stored_values


def _shown(codes: list[int], how: Rendering) -> list[float]:
    kind = np.uint8 if how.bits == 8 else np.uint16
    return render(np.array([codes], kind), how)[0].tolist()


def _window(centre: float, width: float, shape: str = "LINEAR") -> Rendering:
    return Rendering(bits=12, voi=Window(centre, width, WindowShape(shape)))


def test_eight_plain_bits_are_shown_as_they_are():
    assert _shown([0, 7, 255], Rendering(bits=8)) == [0, 7, 255]


def test_monochrome1_shows_the_lowest_value_white():
    assert _shown([0, 7, 255], Rendering(bits=8, is_negative=True)) == [255, 248, 0]


def test_the_widest_linear_window_of_the_standard():
    # PS3.3 C.11.2.1.2.1, c = 2048, w = 4096: ((x - 2047.5) / 4095 + 0.5) * range
    values = np.array([0, 1, 2047, 2048, 4095])

    shown = _shown(values.tolist(), _window(2048.0, 4096.0))

    assert_allclose(shown, ((values - 2047.5) / 4095 + 0.5) * 255, rtol=1e-6)
    assert (shown[0], shown[-1]) == (0, 255)


def test_the_narrowest_linear_window_of_the_standard():
    # PS3.3 C.11.2.1.2.1, c = 2048, w = 1: black up to 2047.5, white above
    assert _shown([2047, 2048], _window(2048.0, 1.0)) == [0, 255]


def test_a_window_of_width_zero_shows_nothing_and_is_passed_over():
    assert _shown([0, 2048, 4095], _window(2048.0, 0.0)) == _shown(
        [0, 2048, 4095], Rendering(bits=12)
    )


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_window_that_is_no_number_is_passed_over(number):
    assert _shown([0, 4095], _window(number, 100.0)) == [0, 255]
    assert _shown([0, 4095], _window(100.0, number)) == [0, 255]


@pytest.mark.parametrize("shape", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@given(centre=st.floats(-500, 4500), width=st.floats(2, 5000))
def test_windows_agree_with_pydicom(shape, centre, width):
    dataset = Dataset()
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsStored, dataset.VOILUTFunction = 12, shape
    dataset.WindowCenter, dataset.WindowWidth = f"{centre:.6f}", f"{width:.6f}"
    values = np.arange(0, 4096, 65)
    golden = apply_windowing(values, dataset) / 4095

    shown = Window(float(f"{centre:.6f}"), float(f"{width:.6f}"), WindowShape(shape)).apply(
        values.astype(np.float64)
    )

    assert_allclose(shown, golden, atol=1e-6)


def test_a_window_counts_in_units_after_the_rescale():
    rescaled = Rendering(bits=12, modality=(2.0, -1000.0), voi=Window(500.5, 1001.0))
    plain = Rendering(bits=12, voi=Window(750.5, 501.0))

    # 2 x - 1000 runs from 0 to 1000 where x runs from 500 to 1000
    assert_allclose(_shown([400, 500, 750, 1000, 1100], rescaled), [0, 0, 127.5, 255, 255])
    assert_allclose(_shown([400, 500, 750, 1000, 1100], plain), [0, 0, 127.5, 255, 255])


def test_a_window_beside_the_film_is_passed_over():
    assert _shown([100, 200, 300], _window(3000.0, 100.0)) == [0, 127.5, 255]


def test_signed_values_lie_around_zero():
    assert stored_values(8, is_signed=True)[[0, 127, 128, 255]].tolist() == [0, 127, -128, -1]

    how = Rendering(bits=16, is_signed=True, voi=Window(0.5, 201.0))
    assert_allclose(_shown([0xFF9C, 0, 100], how), [0, 127.5, 255])  # -100, 0, 100


def test_bits_above_those_stored_are_ignored():
    how = Rendering(bits=12, voi=Window(2048.0, 4096.0))

    assert _shown([0xF123, 0x0123], how) == [_shown([0x123], how)[0]] * 2


def test_without_a_window_the_film_runs_between_its_percentiles():
    # 1000 values 1000 ... 1999: five lie below 1005 and four above 1995
    codes = np.arange(1000, 2000, dtype=np.uint16).reshape(20, 50)

    shown = render(codes, Rendering(bits=12)).ravel()

    assert_allclose(shown, np.clip((np.arange(1000) - 5) / 990, 0, 1) * 255, rtol=1e-5, atol=1e-4)


def test_a_negative_slope_turns_the_film_round():
    codes = list(range(0, 4000, 40))

    turned = _shown(codes, Rendering(bits=12, modality=(-1.0, 4095.0)))

    assert_allclose(turned, 255 - np.array(_shown(codes, Rendering(bits=12))), atol=255 * 0.011)
    assert turned[0] == 255
    assert turned[-1] == 0


def test_padding_counts_for_no_percentile():
    codes = [0] * 900 + list(range(2000, 2100))

    shown = _shown(codes, Rendering(bits=12, padding=(0, 0)))

    assert shown[0] == 0
    assert shown[950] == pytest.approx(127.5, abs=3)
    assert _shown([0, 0], Rendering(bits=12, padding=(0, 0))) == [0, 0]


@pytest.mark.parametrize(("is_negative", "grey"), [(False, 0), (True, 255)])
def test_a_film_of_one_value_is_of_one_grey(is_negative, grey):
    assert _shown([700, 700], Rendering(bits=12, is_negative=is_negative)) == [grey, grey]


def test_few_odd_values_do_not_make_a_film_blank():
    # both percentiles lie at 500, though not every pixel does
    assert _shown([500] * 999 + [600], Rendering(bits=12))[-1] == 255


def test_a_voi_table_is_looked_up_and_clipped_at_its_ends():
    table = LookUp(100, np.array([0.0, 0.25, 1.0]))

    shown = _shown([0, 100, 101, 102, 4000], Rendering(bits=12, voi=table))

    assert shown == [0, 0, 63.75, 255, 255]


def test_a_modality_table_comes_before_the_window():
    table = LookUp(0, np.array([0.0, 1000.0, 500.0]))
    how = Rendering(bits=8, modality=table, voi=Window(500.5, 1001.0))

    assert_allclose(_shown([0, 1, 2, 9], how), [0, 255, 127.5, 127.5])


@given(
    bits=st.integers(8, 16),
    is_signed=st.booleans(),
    is_negative=st.booleans(),
    slope=st.floats(0.01, 100) | st.floats(-100, -0.01),
    intercept=st.floats(-5000, 5000),
    seed=st.integers(0, 2**31),
)
def test_grey_lies_between_black_and_white_in_the_order_of_the_values(
    bits, is_signed, is_negative, slope, intercept, seed
):
    codes = np.random.default_rng(seed).integers(0, 2**bits, (9, 11))
    codes = codes.astype(np.uint8 if bits == 8 else np.uint16)
    how = Rendering(bits, is_signed, (slope, intercept), is_negative=is_negative)

    grey = render(codes, how)

    assert grey.dtype == np.float32
    assert (grey.min(), grey.max()) == (0, 255)
    order = np.argsort(stored_values(bits, is_signed=is_signed)[codes].ravel())
    steps = np.diff(grey.ravel()[order])
    assert (steps * (-1 if is_negative else 1) * np.sign(slope) >= 0).all()
