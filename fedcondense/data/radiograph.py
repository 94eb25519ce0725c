"""One image file → pixels in the study's form and a patient key; nothing else of it is kept."""

from __future__ import annotations

import contextlib
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from fedcondense.config.site import BurnedIn
from fedcondense.config.study import ImageSpec
from fedcondense.data.dicom import MARK, PREAMBLE, is_dicom, read_dicom, unreadable
from fedcondense.errors import ImageError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow and the published data sets weigh colour

# what Pillow's readers of these formats raise on damaged bytes
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True)
class Film:
    """What is kept of an image file.

    Attributes:
        pixels: in [0, 255], as large as in the file; grey has one plane, colour three.
        patient: a key of DICOM's patient id (see `DicomFilm`); None: the file names nobody.
        is_dicom: rendered from DICOM.
    """

    pixels: Float32[np.ndarray, "planes rows columns"] = field(repr=False)
    patient: bytes | None = field(default=None, repr=False)
    is_dicom: bool = False


def read_radiograph(
    path: Path, spec: ImageSpec, burned_in: BurnedIn = BurnedIn.REFUSE
) -> UInt8[Tensor, "c h w"]:
    """Read an image file as pixels in [0, 255] of the study's size and channels.

    The aspect is not kept: the whole film is squashed into the square, as the COVID-19
    Radiography Database does.

    Raises:
        ImageError: see `read_film`.
    """
    film = read_film(path, burned_in)
    return fit(torch.from_numpy(film.pixels).unsqueeze(0), spec).squeeze(0)


def read_film(path: Path, burned_in: BurnedIn, secret: bytes | None = None) -> Film:
    """Read a PNG, JPEG, BMP or TIFF file, or a DICOM one, by its content, not by its name.

    Transparent pixels become black. Metadata is dropped; of EXIF only the orientation is obeyed,
    of DICOM what says how pixels are shown, and the patient id as a key under `secret`.

    Raises:
        ImageError: the file is no such image, damaged, or too large; the message names no file.
    """
    with _pillow_problems(path):
        with path.open("rb") as file:
            start = file.read(PREAMBLE + len(MARK))
        if is_dicom(start):
            dicom = read_dicom(path, burned_in, secret)
            return Film(dicom.pixels, dicom.patient, is_dicom=True)
        with Image.open(path, formats=FORMATS) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise ImageError(
                    "several images in one file, expected one", hint="export one film to a file"
                )
            return Film(_pixels(ImageOps.exif_transpose(image)))


def fit(
    pixels: Float32[Tensor, "n planes rows columns"], spec: ImageSpec
) -> UInt8[Tensor, "n c h w"]:
    """Bring pixels in [0, 255] to the study's channels and size, antialiased, rounding once.

    Grey is copied into three channels, three channels become luminance (ITU-R BT.601). Pixels are
    shrunk as floating point numbers: kernels for uint8 differ between processors.
    """
    if pixels.shape[1] > spec.channels:
        weights = torch.tensor(LUMA).view(1, 3, 1, 1)
        pixels = (pixels * weights).sum(dim=1, keepdim=True)
    if pixels.shape[-2:] != (spec.size, spec.size):
        side = (spec.size, spec.size)
        pixels = F.interpolate(pixels, size=side, mode="bilinear", antialias=True)
    return pixels.round().clamp(0, 255).to(torch.uint8).expand(-1, spec.channels, -1, -1).clone()


@contextlib.contextmanager
def _pillow_problems(path: Path) -> Iterator[None]:
    """Turn what Pillow raises inside, and its warning of a decompression bomb, into ImageError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ImageError(
            f"more than {Image.MAX_IMAGE_PIXELS} pixels",
            hint="no radiograph is that large; export the film again",
        ) from None
    except PermissionError as error:
        raise unreadable(error) from None
    except _DAMAGE as error:
        raise ImageError(
            _what_is_wrong(path, error), hint="export or copy the file again"
        ) from None


def _what_is_wrong(path: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if path.stat().st_size == 0:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "not a PNG, JPEG, BMP, TIFF or DICOM image"
    return "damaged or truncated"


def _pixels(image: Image.Image) -> Float32[np.ndarray, "planes rows columns"]:
    """Grey as one plane, colour as three, each in [0, 255]."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _sixteen_bit(image)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image)
    elif image.mode in ("1", "L"):
        return np.asarray(image.convert("L"), dtype=np.float32)[None]
    elif image.mode not in ("P", "RGB", "CMYK", "YCbCr"):
        raise ImageError(
            f"pixels of kind {image.mode} are not read",
            hint="export as 8-bit or 16-bit grey, or as RGB",
        )
    colours = np.asarray(image.convert("RGB"), dtype=np.float32)
    return np.ascontiguousarray(colours.transpose(2, 0, 1))


def _sixteen_bit(image: Image.Image) -> Float32[np.ndarray, "1 rows columns"]:
    # 65535 / 257 is exactly 255, so both formats mean the same grey. Each image's own range is
    # not stretched: that would give films of one site different exposures.
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65_535:
        raise ImageError("grey values outside of 16 bits", hint="export as 16-bit grey")
    return (values.astype(np.float32) / 257)[None]
