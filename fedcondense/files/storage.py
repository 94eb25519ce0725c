"""The one way to write a file: whole or not at all; JSON in one canonical form; raw arrays."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from fedcondense.errors import SettingsError

ABANDONED = 3600.0  # seconds; the largest file is written in a few
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")

Arrays = dict[str, NDArray[Any]]


def sha256(data: bytes) -> str:
    """Hex SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def _temporary_beside(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    """A synced file with `data` in the folder of `path`, gone afterwards unless moved."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Delete what writers that were killed left in a folder and below, an hour ago or more."""
    latest = time.time() - ABANDONED
    for path in folder.rglob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if _TEMPORARY.fullmatch(path.name) and path.stat().st_mtime < latest:
                path.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write `data` so that a reader, or a crash, sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary_beside(path, data, mode) as temporary:
        temporary.replace(path)
    _sync_folder(path.parent)


def write_exclusively(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Like `write_atomically`, but never over an existing file.

    Raises:
        FileExistsError: `path` exists already; it is left as it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary_beside(path, data, mode) as temporary:
        os.link(temporary, path)
    _sync_folder(path.parent)


def nearest_existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists: on whose disk it would be made."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


@contextlib.contextmanager
def written_for_an_operator(path: Path) -> Iterator[None]:
    """What cannot be written inside, at `path` or beside it, is an error that says where and why.

    Raises:
        SettingsError: an operation of the file system failed.
    """
    try:
        yield
    except OSError as error:
        where = Path(error.filename or path)
        where = where.parent if where.suffix == ".tmp" else where  # a temporary file says nothing
        raise SettingsError(
            f"{where}: {(error.strerror or 'cannot be written').lower()}",
            hint="give a path in a folder that this user can write",
        ) from None


def canonical_json(value: Any) -> bytes:
    """ASCII JSON with sorted keys and no insignificant space: equal values give equal bytes.

    Raises:
        ValueError: `value` holds NaN or an infinity.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return text.encode("ascii")


def write_json(path: Path, value: Any) -> None:
    """Write `value` atomically as canonical JSON."""
    write_atomically(path, canonical_json(value))


def read_json(path: Path) -> Any:
    """Read a JSON file that we wrote ourselves; received bytes have stricter readers."""
    return json.loads(path.read_bytes())


def arrays_to_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Named arrays as safetensors: raw numbers, no code."""
    # not `ascontiguousarray`: it makes a row of a single number
    return save_safetensors({name: np.asarray(a, order="C") for name, a in arrays.items()})


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays atomically as safetensors."""
    write_atomically(path, arrays_to_bytes(arrays))


def read_arrays(path: Path) -> Arrays:
    """Read named arrays from safetensors."""
    return load_safetensors(path.read_bytes())


def read_row(path: Path, name: str, row: int) -> NDArray[Any]:
    """One row of one array of a safetensors file, without reading the others."""
    with safe_open(path, framework="numpy") as file:
        found: NDArray[Any] = file.get_slice(name)[row]
        return found
