"""Listed image files → pixels in the study's form, and what tells copies and patients apart."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from fedcondense.config.site import BurnedIn
from fedcondense.config.study import ImageSpec
from fedcondense.data.dicom import KEY_BYTES
from fedcondense.data.duplicates import SIDE, Thumbnails
from fedcondense.data.listing import ImageFile
from fedcondense.data.problems import Problem
from fedcondense.data.radiograph import Film, fit, read_film
from fedcondense.errors import ImageError
from fedcondense.progress import Step, Watch

THUMBNAIL = ImageSpec(size=SIDE, channels=1)
NOBODY = bytes(KEY_BYTES)
_MIXED_HINT = (
    "keep one kind: the two come to grey in different ways, and a class could be told by it"
)


@dataclass(frozen=True)
class Films:
    """What was read of files, file by file.

    Attributes:
        images: in the study's form.
        thumbnails: grey, for the search for copies.
        digests: of the decoded pixels at their full size.
        patients: a key of the patient whom DICOM names, under the site's secret; zeros: nobody.
    """

    images: UInt8[Tensor, "n c h w"] = field(repr=False)
    thumbnails: Thumbnails = field(repr=False)
    digests: tuple[bytes, ...] = field(repr=False)
    patients: UInt8[np.ndarray, "n key"] = field(repr=False)


def read_films(
    files: Sequence[ImageFile],
    spec: ImageSpec,
    burned_in: BurnedIn,
    watch: Watch,
    secret: bytes | None = None,
) -> tuple[Films, tuple[ImageFile, ...], list[Problem]]:
    """Read what can be read of `files`: (the films, their files, what is wrong with the others).

    DICOM among other files, or other files among DICOM, is a problem of the fewer.
    """
    images = torch.empty(len(files), spec.channels, spec.size, spec.size, dtype=torch.uint8)
    thumbnails = np.empty((len(files), SIDE, SIDE), np.uint8)
    read: list[ImageFile] = []
    films: list[_Trace] = []
    problems = []
    for done, file in enumerate(files, start=1):
        try:
            film = read_film(file.path, burned_in, secret)
        except ImageError as error:
            problems.append(Problem(file.row, error.message, error.hint, file.name))
        else:
            pixels = torch.from_numpy(film.pixels).unsqueeze(0)
            images[len(read)] = fit(pixels, spec)[0]
            thumbnails[len(read)] = fit(pixels, THUMBNAIL)[0, 0].numpy()
            films.append(_trace_of(film))
            read.append(file)
        watch(Step("reading images", done, len(files)))
    found = Films(
        images[: len(read)],
        thumbnails[: len(read)],
        tuple(trace.digest for trace in films),
        _as_rows([trace.patient or NOBODY for trace in films]),
    )
    return found, tuple(read), problems + _mixed(read, films)


@dataclass(frozen=True)
class _Trace:
    digest: bytes
    patient: bytes | None
    is_dicom: bool


def _trace_of(film: Film) -> _Trace:
    digest = hashlib.sha256(repr(film.pixels.shape).encode())
    digest.update(np.ascontiguousarray(film.pixels).data)
    return _Trace(digest.digest(), film.patient, film.is_dicom)


def _as_rows(keys: Sequence[bytes]) -> UInt8[np.ndarray, "n key"]:
    return np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), KEY_BYTES).copy()


def _mixed(files: Sequence[ImageFile], traces: Sequence[_Trace]) -> list[Problem]:
    dicom = [file for file, trace in zip(files, traces, strict=True) if trace.is_dicom]
    others = [file for file, trace in zip(files, traces, strict=True) if not trace.is_dicom]
    if not dicom or not others:
        return []
    reason = "DICOM, and most files are not" if len(dicom) < len(others) else "not DICOM, as others"
    fewer = min(dicom, others, key=len)
    return [Problem(file.row, reason, _MIXED_HINT, file.name) for file in fewer]
