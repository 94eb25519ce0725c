"""The secret under which a site knows the patients whom DICOM names."""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path

from fedcondense.files.storage import write_exclusively

FILE = "patients.key"  # beside the folder of images: a cache may be emptied, this must stay
BYTES = 32


def patient_secret(cache: Path | None) -> bytes | None:
    """The site's own 32 bytes, drawn once; None where nothing is kept from one reading to the next.

    Which patients are held out for audits follows from their names, and the name of one whom DICOM
    alone knows from this secret: with another one, others would be held out.
    """
    if cache is None:
        return None
    path = cache.parent / FILE
    if not path.exists():
        # another process may be first; a state that cannot be written to condenses nothing either
        with contextlib.suppress(OSError):
            write_exclusively(path, secrets.token_bytes(BYTES))
    return path.read_bytes() if path.exists() else None
