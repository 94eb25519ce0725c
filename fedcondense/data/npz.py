"""An npz file → arrays, checked before anything is inflated; arrays → npz.

An npz is a zip of npy arrays. It is read without NumPy's loader: a header that promises objects
(pickles, which run code) or more bytes than its zip entry holds is refused unread.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fedcondense.errors import DataError

LARGEST_INFLATED = 4 * 2**30  # bytes of all arrays that are read
LONGEST_HEADER = 16_384  # bytes; NumPy itself refuses headers above 10,000

# damaged, encrypted, or packed in a way that npz never is
_NO_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)


@dataclass(frozen=True)
class _Header:
    """What an npy header promises."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    is_fortran: bool
    length: int  # bytes before the data

    @property
    def data_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_npz(
    path: Path, *, required: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Read the named arrays of an npz, as many of the optional ones as it has; others are ignored.

    Raises:
        DataError: the file is no npz, lacks an array, would inflate past `LARGEST_INFLATED`, or
            holds objects; nothing was unpickled.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path.name, required, optional)
            return {key: _read_member(archive, info, path.name) for key, info in members.items()}
    except OSError as error:
        problem = (error.strerror or "unreadable").lower()
        raise _refuse(
            path.name, problem, "give the path of an npz that this user can read"
        ) from None
    except _NO_ARCHIVE as error:
        raise _refuse(
            path.name,
            f"not an npz archive: {str(error).lower()}",
            "write it with np.savez_compressed",
        ) from None


def _members(
    archive: zipfile.ZipFile, name: str, required: Sequence[str], optional: Sequence[str]
) -> dict[str, zipfile.ZipInfo]:
    wanted = {f"{key}.npy": key for key in (*required, *optional)}
    infos = [info for info in archive.infolist() if info.filename in wanted]
    members = {wanted[info.filename]: info for info in infos}
    if missing := [key for key in required if key not in members]:
        raise _refuse(name, f"no array {', '.join(missing)}", "see docs/ref-data.md for the form")
    if len(members) < len(infos):
        raise _refuse(name, "an array stands twice", "write it with np.savez_compressed")
    inflated = sum(info.file_size for info in infos)
    if inflated > LARGEST_INFLATED:
        raise _refuse(
            name,
            f"would inflate to {inflated} bytes, more than {LARGEST_INFLATED}",
            "shrink the images to about the study's size first",
        )
    return members


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> np.ndarray:
    key = info.filename.removesuffix(".npy")
    with archive.open(info) as file:
        header = _parse_header(file.read(LONGEST_HEADER), f"{name}: {key}")
    if header.dtype.hasobject:
        raise _refuse(
            f"{name}: {key}",
            "holds Python objects, which are never unpickled",
            "convert it: images to uint8, texts with .astype(str)",
        )
    if min(header.shape, default=0) < 0 or header.length + header.data_bytes != info.file_size:
        raise _refuse(
            f"{name}: {key}",
            f"shape {header.shape} of {header.dtype} does not match its {info.file_size} bytes",
            "write it with np.savez_compressed",
        )
    content = archive.read(info)
    if len(content) < info.file_size:
        raise _refuse(f"{name}: {key}", "ends too early", "copy the file again")
    order: Literal["F", "C"] = "F" if header.is_fortran else "C"
    return np.ndarray(header.shape, header.dtype, content, header.length, order=order)


def _parse_header(start: bytes, where: str) -> _Header:
    file = io.BytesIO(start)
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, is_fortran, dtype = read(file)
    except (ValueError, KeyError, TypeError) as error:
        problem = str(error).partition("\n")[0].lower()
        raise _refuse(
            where, f"not an npy array: {problem}", "write it with np.savez_compressed"
        ) from None
    return _Header(dtype, shape, is_fortran, file.tell())


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The npz of `arrays`, compressed and without a time in it: equal arrays give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, array in arrays.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return buffer.getvalue()


def _refuse(where: str, problem: str, hint: str) -> DataError:
    return DataError(f"{where}: {problem}", hint=hint)
