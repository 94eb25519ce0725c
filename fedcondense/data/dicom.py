"""The only door for DICOM: pixels and a patient key come in, every other identifier stays out.

Only the tags in `TAGS` are parsed. pydicom is optional (the extra `dicom`) and loaded when the
first DICOM file is met.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import secrets
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32
from PIL import Image

from fedcondense.config.site import BurnedIn
from fedcondense.data.grey import Codes, LookUp, Rendering, Window, WindowShape, render
from fedcondense.errors import ImageError

if TYPE_CHECKING:
    from pydicom import Dataset

KEY_BYTES = 16  # of a patient's key
MARK = b"DICM"  # after a preamble of 128 bytes
PREAMBLE = 128
NO_PYDICOM = "a DICOM file, and pydicom is not installed"
TAGS = [
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PhotometricInterpretation", "SamplesPerPixel", "NumberOfFrames", "BurnedInAnnotation"),
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData", "PatientID"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept"),
    *("ModalityLUTSequence", "VOILUTSequence", "VOILUTFunction", "WindowCenter", "WindowWidth"),
]
# Where nothing is kept, a patient's key joins films in one process and is no identifier elsewhere.
_PROCESS_KEY = secrets.token_bytes(32)

# what pydicom and its decoders raise on damaged or unusual files
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True)
class DicomFilm:
    """What passes the door.

    Attributes:
        pixels: grey in [0, 255].
        patient: a key of the patient id, equal under one secret for equal ids; None: no id.
    """

    pixels: Float32[np.ndarray, "1 rows columns"] = field(repr=False)
    patient: bytes | None = field(repr=False)


def is_dicom(start: bytes) -> bool:
    """Whether a file that begins with these 132 bytes is DICOM."""
    return start[PREAMBLE : PREAMBLE + len(MARK)] == MARK


def read_dicom(path: Path, burned_in: BurnedIn, secret: bytes | None = None) -> DicomFilm:
    """Read one grey film of 8 to 16 bits.

    Patients are keyed under `secret`, 32 bytes of the site's own; else under one of this process.

    Raises:
        ImageError: pydicom or a decoder is missing, or the file is no such film, or may have names
            burned into its pixels; the text holds nothing of the file.
    """
    _require_pydicom()
    with _quiet(), _dicom_problems():
        dataset = _parsed(path)
        _check_form(dataset)
        _check_burned_in(dataset, burned_in)
        pixels = render(_codes(dataset), _rendering(dataset))
        return DicomFilm(pixels[None], _patient_key(dataset, secret or _PROCESS_KEY))


def unreadable(error: PermissionError) -> ImageError:
    """What to say of a file that this user may not read."""
    problem = (error.strerror or "permission denied").lower()
    return ImageError(problem, hint="let the user of this program read it: chmod or chown")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence pydicom: its warnings and log lines may quote what a tag holds."""
    logger = logging.getLogger("pydicom")
    before, logger.propagate = logger.propagate, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.propagate = before


@contextlib.contextmanager
def _dicom_problems() -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise unreadable(error) from None
    except OSError as error:
        problem = error.strerror.lower() if error.strerror else "damaged or truncated DICOM"
        raise ImageError(problem, hint="export or copy the file again") from None
    except _damage():
        raise ImageError(
            "damaged or truncated DICOM", hint="export or copy the file again"
        ) from None


def _damage() -> tuple[type[Exception], ...]:
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (*_DAMAGE, BytesLengthException, InvalidDicomError)


def _require_pydicom() -> None:
    try:
        import pydicom  # noqa: F401
    except ImportError:
        raise _unread(
            NO_PYDICOM,
            "pip install 'pydicom>=3,<4'",
        ) from None


def _parsed(path: Path) -> Dataset:
    from pydicom import dcmread

    return dcmread(path, specific_tags=TAGS)


def _check_form(dataset: Dataset) -> None:
    if "PixelData" not in dataset:
        kind = "floating point pixels" if _has_float_pixels(dataset) else "no image inside"
        raise _unread(f"DICOM with {kind}", "export radiographs alone, as CR or DX images")
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise _unread("several frames, expected one", "export one film to a file")
    is_grey = _word(dataset, "PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2")
    if not is_grey or _whole(dataset, "SamplesPerPixel", 1) > 1:
        raise _unread("a colour DICOM image", "export as MONOCHROME1 or MONOCHROME2")
    allocated, stored = _whole(dataset, "BitsAllocated"), _whole(dataset, "BitsStored")
    if allocated not in (8, 16) or not 8 <= stored <= allocated:
        raise _unread("DICOM pixels of other than 8 to 16 bits", "export with 8 to 16 bits stored")
    if _whole(dataset, "HighBit", stored - 1) != stored - 1:
        raise _unread("DICOM pixels that do not end at bit 0", "export the film again")
    if _whole(dataset, "Rows") * _whole(dataset, "Columns") > (Image.MAX_IMAGE_PIXELS or math.inf):
        raise _unread(
            f"more than {Image.MAX_IMAGE_PIXELS} pixels",
            "no radiograph is that large; export the film again",
        )


def _check_burned_in(dataset: Dataset, allowed: BurnedIn) -> None:
    stated = _word(dataset, "BurnedInAnnotation")
    if stated == "NO" or allowed is BurnedIn.ALLOW:
        return
    if stated:
        raise _unread(
            "burned-in annotation: names may stand in the pixels",
            'export without it, or set images.burned_in = "allow" after looking at the films',
        )
    if allowed is BurnedIn.REFUSE:
        raise _unread(
            "does not say whether it has burned-in annotation",
            'look at the films, then set images.burned_in = "unstated"',
        )


def _codes(dataset: Dataset) -> Codes:
    """Raw bit patterns, decompressed."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    name = syntax.name if syntax.is_transfer_syntax else "an unknown syntax"
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise _unread(f"DICOM in {name}, which is not read", "export uncompressed") from None
    if not decoder.is_available:
        raise _unread(
            f"compressed as {name}, and no decoder for it is installed",
            "install one that pydicom knows, see docs/ref-data.md, or export uncompressed",
        )
    try:
        pixels, _ = decoder.as_array(dataset, index=0, raw=True)
    except RuntimeError:  # of a decoder, for instance Pillow's for 12 bits of JPEG
        raise _unread(
            f"compressed as {name}, in a way that no installed decoder knows",
            "it is damaged, or needs another decoder, see docs/ref-data.md",
        ) from None
    unsigned = np.uint8 if pixels.dtype.itemsize == 1 else np.uint16
    return np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("="))).view(unsigned)


def _rendering(dataset: Dataset) -> Rendering:
    padding = None
    if (low := dataset.get("PixelPaddingValue")) is not None:
        high = dataset.get("PixelPaddingRangeLimit", low)
        padding = (min(int(low), int(high)), max(int(low), int(high)))
    is_signed = bool(_whole(dataset, "PixelRepresentation", 0))
    return Rendering(
        bits=_whole(dataset, "BitsStored"),
        is_signed=is_signed,
        modality=_modality(dataset, is_signed=is_signed),
        voi=_values_of_interest(dataset),
        is_negative=_word(dataset, "PhotometricInterpretation") == "MONOCHROME1",
        padding=padding,
    )


def _modality(dataset: Dataset, *, is_signed: bool) -> LookUp | tuple[float, float]:
    if dataset.get("ModalityLUTSequence"):
        return _look_up(dataset, "ModalityLUTSequence", is_signed=is_signed)[0]
    slope = _number(dataset, "RescaleSlope", 1.0)
    intercept = _number(dataset, "RescaleIntercept", 0.0)
    if slope == 0 or not math.isfinite(2**16 * abs(slope) + abs(intercept)):
        raise _unread("a rescale slope or intercept that is no number", "export the film again")
    return slope, intercept


def _values_of_interest(dataset: Dataset) -> LookUp | Window | None:
    """The first table, else the first window (PS3.3 C.11.2: they are alternatives)."""
    if dataset.get("VOILUTSequence"):
        table, bits = _look_up(dataset, "VOILUTSequence", is_signed=_is_signed_after(dataset))
        return LookUp(table.first, np.clip(table.entries / (2**bits - 1), 0, 1))
    if dataset.get("WindowCenter") is None or dataset.get("WindowWidth") is None:
        return None
    shape = _word(dataset, "VOILUTFunction")
    return Window(
        _number(dataset, "WindowCenter", 0.0),
        _number(dataset, "WindowWidth", 0.0),
        WindowShape(shape) if shape in set(WindowShape) else WindowShape.LINEAR,
    )


def _is_signed_after(dataset: Dataset) -> bool:
    """Whether values after the modality transform can be below zero."""
    is_signed = bool(_whole(dataset, "PixelRepresentation", 0))
    return is_signed or _number(dataset, "RescaleIntercept", 0.0) < 0


def _look_up(dataset: Dataset, sequence: str, *, is_signed: bool) -> tuple[LookUp, int]:
    """A table of the first item, as stored, and the bits of its entries (PS3.3 C.11.1.1)."""
    item = dataset[sequence].value[0]
    length, first, bits = (int(value) for value in item["LUTDescriptor"].value)
    if is_signed and first >= 2**15:
        first -= 2**16  # the tag is signed then, and implicit syntaxes do not say so
    data = item["LUTData"].value
    if isinstance(data, bytes):
        order = "<" if dataset.original_encoding[1] else ">"
        data = np.frombuffer(data, "u1" if len(data) == length else f"{order}u2")
    entries = np.asarray(data, dtype=np.float64).ravel()
    if len(entries) != (length or 2**16) or not 8 <= bits <= 16:
        raise _unread("a look-up table of another length than it says", "export the film again")
    return LookUp(first, entries), bits


def _patient_key(dataset: Dataset, secret: bytes) -> bytes | None:
    name = str(dataset.get("PatientID") or "").strip()
    if not name:
        return None
    return hashlib.blake2b(name.encode(), key=secret, digest_size=KEY_BYTES).digest()


def _word(dataset: Dataset, keyword: str) -> str:
    return str(dataset.get(keyword) or "").strip().upper()


def _whole(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    value: Any = dataset.get(keyword)
    if value is None and default is not None:
        return default
    return int(value)


def _number(dataset: Dataset, keyword: str, default: float) -> float:
    """A decimal string; the first where there are several."""
    value: Any = dataset.get(keyword)
    if value is None or value == "":
        return default
    return float(value if isinstance(value, str) or not hasattr(value, "__getitem__") else value[0])


def _has_float_pixels(dataset: Dataset) -> bool:
    return "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset


def _unread(problem: str, hint: str) -> ImageError:
    return ImageError(problem, hint=hint)
