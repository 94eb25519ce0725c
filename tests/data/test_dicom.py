from __future__ import annotations

import configparser
import contextlib
import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_kit import NAME, PLANTED, film, write_dicom
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from PIL import Image
from project_kit import extra_of
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import JPEGLosslessSV1, RLELossless

import fedcondense.data
from fedcondense.config.site import BurnedIn
from fedcondense.data import dicom
from fedcondense.data.dicom import read_dicom
from fedcondense.errors import ImageError

FULL = {"WindowCenter": 2048, "WindowWidth": 4096}  # 12 bits: x * 255 / 4095


def _read(path: Path, burned_in: BurnedIn = BurnedIn.REFUSE) -> np.ndarray:
    return read_dicom(path, burned_in).pixels[0]


def _error(path: Path, burned_in: BurnedIn = BurnedIn.REFUSE) -> ImageError:
    with pytest.raises(ImageError) as caught:
        read_dicom(path, burned_in)
    assert caught.value.hint
    assert not any(planted in str(caught.value) + caught.value.hint for planted in PLANTED)
    return caught.value


def _sequence(first: int, entries: list[int], bits: int) -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", entries)
    return Sequence([item])


def test_eight_bits_are_shown_as_they_are(tmp_path):
    pixels = film(bits=8)

    assert _read(write_dicom(tmp_path / "a.dcm", pixels)).tolist() == pixels.tolist()


def test_monochrome1_is_turned_to_white_on_black(tmp_path):
    pixels = film(bits=8)
    path = write_dicom(tmp_path / "a.dcm", pixels, PhotometricInterpretation="MONOCHROME1")

    assert _read(path).tolist() == (255 - pixels).tolist()


def test_twelve_bits_pass_the_window(tmp_path):
    pixels = film()

    grey = _read(write_dicom(tmp_path / "a.dcm", pixels, bits=12, **FULL))

    assert_allclose(grey, pixels * (255 / 4095), rtol=1e-5)


def test_the_first_of_several_windows_is_taken(tmp_path):
    several = {"WindowCenter": [2048, 40], "WindowWidth": [4096, 80]}
    one = _read(write_dicom(tmp_path / "a.dcm", film(), bits=12, **FULL))

    assert (_read(write_dicom(tmp_path / "b.dcm", film(), bits=12, **several)) == one).all()


def test_the_rescale_comes_before_the_window(tmp_path):
    tags = {
        "RescaleSlope": "2",
        "RescaleIntercept": "-100",
        "WindowCenter": 500,
        "WindowWidth": 800,
    }
    pixels = film()

    grey = _read(write_dicom(tmp_path / "a.dcm", pixels, bits=12, **tags))

    values = 2.0 * pixels - 100
    assert_allclose(grey, np.clip((values - 499.5) / 799 + 0.5, 0, 1) * 255, rtol=1e-5, atol=1e-4)


def test_signed_values_are_read(tmp_path):
    pixels = film().astype(np.int16) - 2048
    tags = {"WindowCenter": 0, "WindowWidth": 4096}

    grey = _read(write_dicom(tmp_path / "a.dcm", pixels, bits=12, **tags))

    assert_allclose(grey, (pixels + 2048) * (255 / 4095), rtol=1e-5, atol=1e-4)


def test_what_stands_above_the_stored_bits_is_ignored(tmp_path):
    clean = _read(write_dicom(tmp_path / "a.dcm", film(), bits=12, **FULL))
    soiled = film() | np.uint16(0x9000)

    assert (_read(write_dicom(tmp_path / "b.dcm", soiled, bits=12, **FULL)) == clean).all()


@pytest.mark.parametrize("bits", range(9, 17))
def test_every_number_of_bits_up_to_sixteen_is_read(tmp_path, bits):
    pixels = film(bits=bits)

    grey = _read(write_dicom(tmp_path / "a.dcm", pixels, bits=bits))

    # without a window: from the second lowest of 256 values to the second highest
    low, high = np.sort(pixels, axis=None)[[1, 254]].astype(float)
    assert_allclose(grey, np.clip((pixels - low) / (high - low), 0, 1) * 255, rtol=1e-5, atol=1e-4)


def test_a_voi_table_comes_before_the_window(tmp_path):
    entries = np.arange(0, 4096, dtype=int)[::-1].tolist()
    tags = {"VOILUTSequence": _sequence(0, entries, 12)}

    grey = _read(write_dicom(tmp_path / "a.dcm", film(), bits=12, **tags, **FULL))

    assert_allclose(grey, 255 - film() * (255 / 4095), rtol=1e-5, atol=1e-4)


def test_a_modality_table_takes_the_place_of_the_rescale(tmp_path):
    pixels = film(bits=8) % 4
    tags = {"ModalityLUTSequence": _sequence(0, [0, 4095, 0, 4095], 12), **FULL}

    grey = _read(write_dicom(tmp_path / "a.dcm", pixels.astype(np.uint8), **tags))

    assert (grey == np.where(pixels % 2, 255, 0)).all()


def test_a_table_that_is_too_short_is_refused(tmp_path):
    sequence = _sequence(0, [0, 1, 2], 12)
    sequence[0].LUTDescriptor = [4, 0, 12]

    error = _error(write_dicom(tmp_path / "a.dcm", film(), bits=12, VOILUTSequence=sequence))

    assert error.message == "a look-up table of another length than it says"


def test_run_lengths_are_decoded_without_a_further_decoder(tmp_path):
    plain = _read(write_dicom(tmp_path / "a.dcm", film(), bits=12))

    packed = write_dicom(tmp_path / "b.dcm", film(), bits=12, syntax=RLELossless)

    assert (_read(packed) == plain).all()


def test_a_compression_without_a_decoder_is_named(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "a.dcm", film(bits=8), syntax=RLELossless)
    data = dcmread(path)
    data.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    data.save_as(path)
    from pydicom.pixels.decoders import JPEGLosslessSV1Decoder

    monkeypatch.setattr(JPEGLosslessSV1Decoder, "_available", {})

    error = _error(path)

    assert error.message == (
        "compressed as JPEG Lossless, Non-Hierarchical, First-Order Prediction (Process 14 "
        "[Selection Value 1]), and no decoder for it is installed"
    )
    assert "docs/ref-data.md" in error.hint


def _shipped(name: str) -> Path:
    """A file that pydicom brings for its own tests."""
    return Path(pydicom.__path__[0]) / "data" / "test_files" / name


@pytest.mark.parametrize("name", ["implicit", "bigendian", "expb", "RLE", "padded", "jp2klossless"])
def test_one_film_is_the_same_however_it_is_stored(name):
    # 16 bits, signed, with a window
    plain = _read(_shipped("MR_small.dcm"), BurnedIn.UNSTATED)

    assert (_read(_shipped(f"MR_small_{name}.dcm"), BurnedIn.UNSTATED) == plain).all()
    assert plain.std() > 50


@pytest.mark.parametrize("name", ["image_dfl.dcm", "JPEG2000.dcm", "J2K_pixelrep_mismatch.dcm"])
def test_deflated_and_jpeg_2000_films_are_decoded(name):
    assert _read(_shipped(name), BurnedIn.UNSTATED).std() > 40


def test_a_bit_depth_that_no_installed_decoder_knows_is_named():
    # 12 bits, which Pillow's JPEG has not
    error = _error(_shipped("JPEG-lossy.dcm"), BurnedIn.UNSTATED)

    assert error.message == (
        "compressed as JPEG Extended (Process 2 and 4), in a way that no installed decoder knows"
    )


def test_an_unknown_compression_is_not_quoted(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", film(bits=8))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.99999.4711\0\0"))

    assert _error(path).message == "DICOM in an unknown syntax, which is not read"


@pytest.mark.parametrize(
    ("stated", "burned_in", "is_read"),
    [
        ("NO", "refuse", True),
        (None, "refuse", False),
        ("", "refuse", False),
        ("YES", "refuse", False),
        (None, "unstated", True),
        ("YES", "unstated", False),
        ("PERHAPS", "unstated", False),
        ("YES", "allow", True),
        (None, "allow", True),
    ],
)
def test_burned_in_annotation_is_read_only_as_far_as_allowed(tmp_path, stated, burned_in, is_read):
    with warnings.catch_warnings(action="ignore"):
        path = write_dicom(tmp_path / "a.dcm", film(bits=8), BurnedInAnnotation=stated)

    if is_read:
        assert _read(path, BurnedIn(burned_in)).shape == (16, 16)
    else:
        assert "burned_in" in _error(path, BurnedIn(burned_in)).hint


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"NumberOfFrames": 2, "PixelData": bytes(512)}, "several frames, expected one"),
        (
            {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0},
            "a colour DICOM image",
        ),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "a colour DICOM image"),
        ({"PixelData": None}, "DICOM with no image inside"),
        ({"BitsStored": 7}, "DICOM pixels of other than 8 to 16 bits"),
        ({"BitsAllocated": 32}, "DICOM pixels of other than 8 to 16 bits"),
        ({"BitsStored": None}, "damaged or truncated DICOM"),
        ({"HighBit": 6}, "DICOM pixels that do not end at bit 0"),
        ({"RescaleSlope": "0"}, "a rescale slope or intercept that is no number"),
        ({"RescaleSlope": "1e305"}, "a rescale slope or intercept that is no number"),
        ({"Rows": 40_000, "Columns": 40_000}, f"more than {Image.MAX_IMAGE_PIXELS} pixels"),
        ({"Rows": 17}, "damaged or truncated DICOM"),
    ],
)
def test_what_is_no_grey_film_is_refused(tmp_path, tags, message):
    assert _error(write_dicom(tmp_path / "a.dcm", film(bits=8), **tags)).message == message


def test_one_frame_may_be_numbered(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", film(bits=8), NumberOfFrames=1)

    assert _read(path).tolist() == film(bits=8).tolist()


def test_pixels_as_floating_point_numbers_are_refused(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", film(bits=8), PixelData=None, FloatPixelData=bytes(1024))

    assert _error(path).message == "DICOM with floating point pixels"


def test_a_file_without_the_mark_is_no_dicom(tmp_path):
    path = tmp_path / "a.dcm"
    path.write_bytes(b"no preamble")

    assert _error(path).message == "damaged or truncated DICOM"


def test_a_missing_file_is_refused(tmp_path):
    assert _error(tmp_path / "Mustermann.dcm").message == "no such file or directory"


@given(keep=st.floats(0.1, 0.98))
def test_a_truncated_film_is_never_read_nor_a_crash(tmp_path_factory, keep):
    path = write_dicom(tmp_path_factory.mktemp("cut") / "a.dcm", film(32), bits=12)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])

    assert "DICOM" in _error(path).message


@pytest.mark.parametrize("syntax", [None, RLELossless])
@given(seed=st.integers(0, 2**31))
def test_a_damaged_film_is_read_or_refused(tmp_path_factory, syntax, seed):
    rng = np.random.default_rng(seed)
    path = tmp_path_factory.mktemp("bad") / "a.dcm"
    write_dicom(path, film(), bits=12, syntax=syntax, VOILUTSequence=_sequence(0, [0, 9], 8))
    content = bytearray(path.read_bytes())
    for place in rng.integers(132, len(content), 8):
        content[place] = rng.integers(256)
    path.write_bytes(content)

    with contextlib.suppress(ImageError):
        assert _read(path, BurnedIn.ALLOW).ndim == 2


def test_equal_patient_ids_give_equal_keys_which_are_not_the_id(tmp_path):
    one, same, other, nobody = (
        read_dicom(write_dicom(tmp_path / f"{n}.dcm", film(bits=8), PatientID=id), BurnedIn.REFUSE)
        for n, id in enumerate(("PAT-4711", " PAT-4711 ", "PAT-1", ""))
    )

    assert one.patient == same.patient != other.patient
    assert nobody.patient is None
    assert b"4711" not in (one.patient or b"")


def test_another_process_gives_another_key(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "a.dcm", film(bits=8))
    here = read_dicom(path, BurnedIn.REFUSE).patient
    assert len(dicom._PROCESS_KEY) == 32

    monkeypatch.setattr(dicom, "_PROCESS_KEY", bytes(32))

    assert read_dicom(path, BurnedIn.REFUSE).patient != here


def test_only_what_is_needed_is_parsed(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", film(bits=8))

    parsed = dicom._parsed(path)

    named = {element.keyword for element in parsed} - {"SpecificCharacterSet"}
    assert named <= set(dicom.TAGS)
    assert {"PatientName", "PatientBirthDate", "AccessionNumber"}.isdisjoint(named)


def test_neither_repr_nor_warning_nor_log_quotes_a_tag(tmp_path, caplog, recwarn):
    with warnings.catch_warnings(action="ignore"):
        # a value that pydicom warns of: names do not belong into decimal strings
        path = write_dicom(tmp_path / "a.dcm", film(bits=8), BurnedInAnnotation=f"no {NAME}")
        content = path.read_bytes()
    caplog.set_level(logging.DEBUG)
    recwarn.clear()
    caplog.clear()

    error = _error(path)
    path.write_bytes(content.replace(b"MONOCHROME2 ", b"Mustermann  "))
    other = _error(path)
    found = read_dicom(write_dicom(tmp_path / "b.dcm", film(bits=8)), BurnedIn.REFUSE)

    told = [str(error), str(other), repr(found), caplog.text, *(str(w.message) for w in recwarn)]
    assert not any(planted in text for text in told for planted in PLANTED)


def test_without_pydicom_the_extra_is_named(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "a.dcm", film(bits=8))
    for name in [name for name in sys.modules if name.startswith("pydicom.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pydicom", None)

    error = _error(path)

    assert error.message == "a DICOM file, and pydicom is not installed"
    assert error.hint == f"pip install '{extra_of('dicom')}'"


def test_every_other_module_of_the_wing_stands_before_the_door():
    contracts = configparser.ConfigParser()
    contracts.read(Path(__file__).parents[2] / ".importlinter")
    closed = contracts["importlinter:contract:dicom-door"]["source_modules"].split()

    modules = {path.stem for path in Path(fedcondense.data.__path__[0]).glob("[a-z]*.py")}

    assert {f"fedcondense.data.{name}" for name in modules - {"dicom"}} <= set(closed)


@pytest.mark.parametrize("name", ["1.2.276.0.7230010*", "*MONOHR1*", "pydicom_CR*"])
def test_films_of_the_wild_are_read(real_data, name):
    (path,) = (real_data / "dicom").glob(name)

    grey = _read(path, BurnedIn.UNSTATED)

    assert grey.std() > 5
    assert 0 <= grey.min() < grey.max() <= 255


def test_a_jpeg_film_and_its_negative_are_each_others_complement(real_data):
    (one,) = (real_data / "dicom").glob("1.2.276.0.7230010*")
    (turned,) = (real_data / "dicom").glob("*MONOHR1*")

    # the second is the first, tagged MONOCHROME1
    assert (_read(one, BurnedIn.UNSTATED) == 255 - _read(turned, BurnedIn.UNSTATED)).all()


def test_a_rescaled_computed_radiograph_agrees_with_a_computation_by_hand(real_data):
    (path,) = (real_data / "dicom").glob("pydicom_CR*")
    stored = dcmread(path).pixel_array.astype(float)

    # its tags: slope 0.684, intercept 200, window 1600 / 2800, MONOCHROME1
    golden = 255 - 255 * ((0.684 * stored + 200 - 1599.5) / 2799 + 0.5)
    assert_allclose(_read(path, BurnedIn.UNSTATED), golden, rtol=1e-5)
