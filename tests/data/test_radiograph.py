from __future__ import annotations

import contextlib
import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from dicom_kit import PLANTED, write_dicom
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.testing import assert_close

from fedcondense.config.site import BurnedIn
from fedcondense.config.study import ImageSpec
from fedcondense.data import dicom
from fedcondense.data.radiograph import fit, read_film, read_radiograph
from fedcondense.errors import ImageError


def _saved(path: Path, values: np.ndarray, mode: str | None = None) -> Path:
    image = Image.fromarray(values)
    (image if mode is None else image.convert(mode)).save(path)
    return path


def _message(path: Path, spec: ImageSpec) -> str:
    with pytest.raises(ImageError) as caught:
        read_radiograph(path, spec)
    assert caught.value.code == "FC201"
    assert caught.value.hint
    return caught.value.message


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
def test_every_format_gives_the_grey_that_was_saved(tmp_path, spec, suffix):
    path = _saved(tmp_path / f"film.{suffix}", np.full((16, 16), 120, np.uint8))

    pixels = read_radiograph(path, spec)

    assert pixels.dtype == torch.uint8
    assert pixels.shape == (1, 16, 16)
    assert (pixels == 120).all()


def test_an_image_of_the_right_size_keeps_its_pixels(tmp_path, spec):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)

    pixels = read_radiograph(_saved(tmp_path / "film.png", values), spec)

    assert pixels[0].tolist() == values.tolist()


def test_grey_is_copied_into_three_channels(tmp_path):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)

    pixels = read_radiograph(_saved(tmp_path / "film.png", values), ImageSpec(size=16, channels=3))

    assert pixels.shape == (3, 16, 16)
    assert (pixels == torch.from_numpy(values)).all()


def test_colour_becomes_luminance(tmp_path, spec):
    values = np.full((16, 16, 3), (200, 100, 50), np.uint8)

    pixels = read_radiograph(_saved(tmp_path / "film.png", values), spec)

    # ITU-R BT.601: 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
    assert (pixels == 124).all()


def test_colour_is_kept_where_the_study_has_three_channels(tmp_path):
    values = np.full((16, 16, 3), (200, 100, 50), np.uint8)

    pixels = read_radiograph(_saved(tmp_path / "film.png", values), ImageSpec(size=16, channels=3))

    assert pixels[:, 3, 5].tolist() == [200, 100, 50]


@pytest.mark.parametrize(("alpha", "expected"), [(0, 0), (255, 180), (128, 90)])
@pytest.mark.parametrize("kind", ["RGBA", "LA"])
def test_transparent_pixels_lie_on_black(tmp_path, spec, kind, alpha, expected):
    grey = Image.new("L", (16, 16), 180)
    image = grey.convert(kind)
    image.putalpha(Image.new("L", (16, 16), alpha))
    image.save(tmp_path / "film.png")

    pixels = read_radiograph(tmp_path / "film.png", spec)

    assert_close(pixels, torch.full_like(pixels, expected), atol=1, rtol=0)


def test_a_palette_is_looked_up(tmp_path, spec):
    image = Image.new("P", (16, 16), 7)
    image.putpalette([0, 0, 0] * 7 + [90, 90, 90])
    image.save(tmp_path / "film.png")

    pixels = read_radiograph(tmp_path / "film.png", spec)

    assert (pixels == 90).all()


def test_a_transparent_palette_entry_is_black(tmp_path, spec):
    image = Image.new("P", (16, 16), 1)
    image.putpalette([10, 10, 10, 90, 90, 90])
    image.save(tmp_path / "film.png", transparency=1)

    pixels = read_radiograph(tmp_path / "film.png", spec)

    assert (pixels == 0).all()


def test_one_bit_is_black_or_white(tmp_path, spec):
    values = np.zeros((16, 16), np.uint8)
    values[8:] = 255

    pixels = read_radiograph(_saved(tmp_path / "film.png", values, "1"), spec)

    assert pixels.unique().tolist() == [0, 255]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_by_257(tmp_path, spec, suffix):
    values = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)

    pixels = read_radiograph(_saved(tmp_path / f"film.{suffix}", values), spec)

    assert pixels[0].flatten().tolist() == list(range(256))


def test_a_dark_sixteen_bit_film_stays_dark(tmp_path, spec):
    values = np.full((16, 16), 257 * 20, np.uint16)

    pixels = read_radiograph(_saved(tmp_path / "film.png", values), spec)

    assert (pixels == 20).all()


def test_grey_values_beyond_sixteen_bits_are_refused(tmp_path, spec):
    path = _saved(tmp_path / "film.tif", np.full((16, 16), 70_000, np.int32))

    assert _message(path, spec) == "grey values outside of 16 bits"


def test_floating_point_pixels_are_refused(tmp_path, spec):
    path = _saved(tmp_path / "film.tif", np.full((16, 16), 0.5, np.float32))

    assert _message(path, spec) == "pixels of kind F are not read"


def test_the_aspect_is_squashed(tmp_path, spec):
    values = np.zeros((20, 80), np.uint8)
    values[:, 40:] = 200

    pixels = read_radiograph(_saved(tmp_path / "film.png", values), spec)

    assert pixels.shape == (1, 16, 16)
    assert (pixels[0, :, :7] == 0).all()
    assert (pixels[0, :, 9:] == 200).all()


def test_a_truncated_image_is_refused(tmp_path, spec):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    path = _saved(tmp_path / "film.png", noise)
    path.write_bytes(path.read_bytes()[:2000])

    assert _message(path, spec) == "damaged or truncated"


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
@given(keep=st.floats(0, 0.95))
def test_a_truncated_image_is_never_read_nor_a_crash(tmp_path_factory, suffix, keep):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    path = _saved(tmp_path_factory.mktemp("cut") / f"film.{suffix}", noise)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])

    assert "film" not in _message(path, ImageSpec(size=16))


@given(seed=st.integers(0, 2**31))
def test_a_damaged_image_is_read_or_refused(tmp_path_factory, seed):
    rng = np.random.default_rng(seed)
    path = _saved(tmp_path_factory.mktemp("bad") / "film.tif", np.full((16, 16), 9, np.uint8))
    content = bytearray(path.read_bytes())
    for place in rng.integers(4, len(content), 8):
        content[place] = rng.integers(256)
    path.write_bytes(content)

    with contextlib.suppress(ImageError):
        assert read_radiograph(path, ImageSpec(size=16)).shape == (1, 16, 16)


def test_an_empty_file_is_refused(tmp_path, spec):
    path = tmp_path / "film.png"
    path.touch()

    assert _message(path, spec) == "the file is empty"


def test_another_kind_of_file_is_refused(tmp_path, spec):
    path = tmp_path / "film.png"
    path.write_text("not an image at all")

    assert _message(path, spec) == "not a PNG, JPEG, BMP, TIFF or DICOM image"


def test_a_missing_file_is_refused(tmp_path, spec):
    assert _message(tmp_path / "film.png", spec) == "no such file or directory"


@pytest.mark.parametrize("where", [(Path, "open"), (dicom, "_parsed")])
def test_a_file_that_this_user_may_not_read_is_not_to_be_exported_again(
    tmp_path, spec, monkeypatch, where
):
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    path = tmp_path / "film.dcm"
    path.write_bytes(bytes(128) + b"DICM")
    monkeypatch.setattr(*where, refuse)

    with pytest.raises(ImageError) as caught:
        read_radiograph(path, spec)

    assert caught.value.message == "permission denied"
    assert caught.value.hint == "let the user of this program read it: chmod or chown"


def test_several_images_in_one_file_are_refused(tmp_path, spec):
    frames = [Image.new("L", (16, 16), grey) for grey in (10, 20)]
    frames[0].save(tmp_path / "film.tif", save_all=True, append_images=frames[1:])

    assert _message(tmp_path / "film.tif", spec) == "several images in one file, expected one"


@pytest.mark.parametrize("limit", [200, 100], ids=["warned of", "refused by Pillow"])
def test_a_decompression_bomb_is_refused(tmp_path, spec, monkeypatch, limit):
    path = _saved(tmp_path / "film.png", np.zeros((16, 16), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)

    assert _message(path, spec) == f"more than {limit} pixels"


def test_the_orientation_in_exif_is_obeyed(tmp_path, spec):
    values = np.zeros((16, 16), np.uint8)
    values[:8] = 200
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by half
    Image.fromarray(values).save(tmp_path / "film.png", exif=exif)

    pixels = read_radiograph(tmp_path / "film.png", spec)

    assert (pixels[0, :8] == 0).all()
    assert (pixels[0, 8:] == 200).all()


@given(seed=st.integers(0, 2**31), size=st.sampled_from([16, 31, 48]))
def test_resizing_agrees_with_pillow_to_one_grey_value(seed, size):
    values = np.random.default_rng(seed).integers(0, 256, (50, 70), dtype=np.uint8)

    fitted = fit(torch.from_numpy(values)[None, None].float(), ImageSpec(size=size))

    # the golden numbers are Pillow's: BILINEAR is antialiased there
    golden = np.array(Image.fromarray(values).resize((size, size), Image.Resampling.BILINEAR))
    assert_close(fitted[0, 0].int(), torch.from_numpy(golden).int(), atol=1, rtol=0)


SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 70))


@given(shape=SHAPES, size=st.sampled_from([16, 31]), channels=st.sampled_from([1, 3]))
def test_any_shape_of_grey_keeps_its_level(tmp_path_factory, shape, size, channels):
    path = _saved(tmp_path_factory.mktemp("odd") / "film.png", np.full(shape, 77, np.uint8))

    pixels = read_radiograph(path, ImageSpec(size=size, channels=channels))

    assert pixels.shape == (channels, size, size)
    assert (pixels == 77).all()


@given(shape=SHAPES, bits=st.integers(9, 16), seed=st.integers(0, 2**31))
def test_sixteen_bit_grey_of_any_shape_and_depth_agrees_with_its_eight_bits(
    tmp_path_factory, shape, bits, seed
):
    folder = tmp_path_factory.mktemp("deep")
    values = np.random.default_rng(seed).integers(0, 2**bits, shape)
    deep = _saved(folder / "deep.png", values.astype(np.uint16))
    flat = _saved(folder / "flat.png", np.round(values / 257).astype(np.uint8))

    read = [read_radiograph(path, ImageSpec(size=16)).int() for path in (deep, flat)]

    assert_close(*read, atol=1, rtol=0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_in_exif_is_obeyed(tmp_path, spec, orientation):
    # turned and mirrored as each number says (EXIF 2.3, tag 274), numpy's words for it
    turns = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).T,
        8: np.rot90,
    }
    values = np.zeros((16, 32), np.uint8)
    values[:8, :16] = 240
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(values).save(tmp_path / "film.jpg", exif=exif, quality=95)
    Image.fromarray(np.ascontiguousarray(turns[orientation](values))).save(tmp_path / "turned.png")

    pixels = read_radiograph(tmp_path / "film.jpg", spec)

    turned = read_radiograph(tmp_path / "turned.png", spec)
    assert_close(pixels.int(), turned.int(), atol=12, rtol=0)


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
@pytest.mark.parametrize("grey", [0, 90, 255])
def test_printers_colours_become_grey(tmp_path, spec, suffix, grey):
    Image.new("L", (16, 16), grey).convert("CMYK").save(tmp_path / f"film.{suffix}")

    pixels = read_radiograph(tmp_path / f"film.{suffix}", spec)

    assert_close(pixels.int(), torch.full_like(pixels, grey).int(), atol=2, rtol=0)


@given(seed=st.integers(0, 2**31), colours=st.integers(2, 256))
def test_a_palette_of_any_length_is_looked_up(tmp_path_factory, seed, colours):
    rng = np.random.default_rng(seed)
    palette, places = rng.integers(0, 256, colours), rng.integers(0, colours, (16, 16))
    image = Image.fromarray(places.astype(np.uint8)).convert("P")
    image.putpalette(palette.repeat(3).tolist())
    path = tmp_path_factory.mktemp("palette") / "film.png"
    image.save(path)

    pixels = read_radiograph(path, ImageSpec(size=16))

    assert pixels[0].tolist() == palette[places].tolist()


def test_content_decides_not_the_name(tmp_path, spec):
    path = tmp_path / "film.dcm"
    Image.new("L", (16, 16), 50).save(path, format="PNG")
    dicom = write_dicom(tmp_path / "film.png", np.full((16, 16), 60, np.uint8))

    assert read_radiograph(path, spec).unique().tolist() == [50]
    assert read_radiograph(dicom, spec).unique().tolist() == [60]


def test_only_dicom_names_a_patient(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "Mustermann"  # the image's description
    Image.new("L", (16, 16)).save(tmp_path / "film.jpg", exif=exif)
    dicom = write_dicom(tmp_path / "film.dcm", np.zeros((16, 16), np.uint8))

    plain, named = (read_film(path, BurnedIn.REFUSE) for path in (tmp_path / "film.jpg", dicom))

    assert (plain.patient, plain.is_dicom) == (None, False)
    assert named.is_dicom
    assert named.patient is not None
    assert not any(planted in repr((plain, named)) for planted in PLANTED)


def test_without_a_word_dicom_is_read_only_if_it_says_that_nothing_is_burned_in(tmp_path, spec):
    path = write_dicom(tmp_path / "film.dcm", np.zeros((16, 16), np.uint8), BurnedInAnnotation=None)

    assert _message(path, spec) == "does not say whether it has burned-in annotation"
    assert read_radiograph(path, spec, BurnedIn.UNSTATED).shape == (1, 16, 16)
