"""What was read of a site's image files, kept in the site's own state for the next time.

An entry is a folder named by a digest of all that its content depends on: the files' names, sizes
and times of change in order, the form of images, and the versions of what decodes them. It holds
pixels, row numbers, and keys of patients under the site's secret: no name, no id and no label. It
appears whole or not at all; an entry that is damaged or of older files is passed over, and pruned
at the next writing.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import re
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as load_safetensors

import fedcondense
from fedcondense.data.listing import ImageFile
from fedcondense.files.lock import locked
from fedcondense.files.storage import arrays_to_bytes, canonical_json, sha256, write_atomically

Arrays = dict[str, np.ndarray]

FORMAT = 2  # of an entry; raise it when arrays change their names or meaning
ARRAYS, ABOUT, LOCK = "images.safetensors", "about.json", "lock"
DECODERS = ("pillow", "pydicom")
_ENTRY = re.compile(r"[0-9a-f]{64}|\.[0-9a-f]{64}\.[0-9a-f]{12}\.tmp")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """Where the content of some files is, or would be, kept.

    Attributes:
        folder: of all entries.
        digest: of all that the content depends on.
        subject: digest of source and form alone; of one subject the newest entry is kept.
    """

    folder: Path
    digest: str
    subject: str

    @classmethod
    def of(cls, folder: Path, files: Sequence[ImageFile], source: Any, form: Any) -> Entry | None:
        """The entry for `files` as they are now; None where one cannot be looked at.

        `source` says where they come from and `form` what they are turned into, as JSON values.
        """
        try:
            stats = [file.path.stat() for file in files]
        except OSError:
            return None
        states = [
            (file.name, stat.st_size, stat.st_mtime_ns)
            for file, stat in zip(files, stats, strict=True)
        ]
        subject = sha256(canonical_json([str(source), form]))
        return cls(folder, sha256(canonical_json([subject, _versions(), states])), subject)

    def read(self) -> Arrays | None:
        """What is kept; None where nothing whole is."""
        path = self.folder / self.digest
        try:
            content = (path / ARRAYS).read_bytes()
            about = json.loads((path / ABOUT).read_bytes())
        except (OSError, ValueError):
            return None
        if not isinstance(about, dict) or about.get("sha256") != sha256(content):
            return None
        return {name: array.copy() for name, array in load_safetensors(content).items()}

    def keep(self, arrays: Arrays) -> None:
        """Keep `arrays`, and prune what is stale.

        A cache that cannot be written is no error: the next time takes longer.
        """
        content = arrays_to_bytes(arrays)
        about = {"sha256": sha256(content), "subject": self.subject, "versions": _versions()}
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with locked(self.folder / LOCK):
                _prune(self.folder, self.subject)
                _publish(self.folder / self.digest, content, canonical_json(about))
        except OSError as error:
            logger.warning("the images read are not kept: %s", error.strerror)


def _versions() -> dict[str, str]:
    versions = {"format": str(FORMAT), "fedcondense": fedcondense.__version__}
    for package in DECODERS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _prune(folder: Path, subject: str) -> None:
    """Remove what a kill left behind, entries of other versions, and older ones of `subject`.

    Nobody else writes: the folder is locked.
    """
    for path in folder.iterdir():
        if _ENTRY.fullmatch(path.name) and _is_stale(path, subject):
            shutil.rmtree(path, ignore_errors=True)


def _is_stale(path: Path, subject: str) -> bool:
    try:
        about = json.loads((path / ABOUT).read_bytes())
        return about["subject"] == subject or about["versions"] != _versions()
    except (OSError, ValueError, LookupError, TypeError):
        return True


def _publish(path: Path, content: bytes, about: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    temporary.mkdir(mode=0o700)
    try:
        write_atomically(temporary / ARRAYS, content, mode=0o600)
        write_atomically(temporary / ABOUT, about, mode=0o600)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
