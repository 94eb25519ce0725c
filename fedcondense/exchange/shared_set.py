"""The global synthetic set as sites are given it: arrays, their bytes, and the digest of both.

No name of a site is in it, and no number of any: who takes part learns nothing of the others'.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float16, UInt8

from fedcondense.exchange.contribution import SyntheticArrays, dequantise
from fedcondense.exchange.terms import decimal_number, rate_text
from fedcondense.files.storage import canonical_json


@dataclass(frozen=True)
class SharedSet:
    """Synthetic images of all sites, united.

    A pixel q means lo + q (hi - lo) / 255 in normalised units. Where the study learns them: `soft`,
    a row of class probabilities per image, and `student_rate`, the step size of whoever trains on
    the set.
    """

    images: UInt8[np.ndarray, "n c h w"] = field(repr=False)
    labels: UInt8[np.ndarray, " n"] = field(repr=False)
    lo: str
    hi: str
    soft: Float16[np.ndarray, "n k"] | None = field(default=None, repr=False)
    student_rate: float | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def sha256(self) -> str:
        """Hex SHA-256 over form and arrays: equal sets, wherever they were made.

        The form is shape, scale and what was learned beside the pixels, the arrays are pixels,
        labels and soft labels.
        """
        form = {"hi": self.hi, "lo": self.lo, "shape": list(self.images.shape)}
        return hashlib.sha256(canonical_json(form | self.learned) + b"\0" + self.data).hexdigest()

    @property
    def data(self) -> bytes:
        """The arrays as they travel: pixels, labels, soft labels, one after another."""
        return b"".join(array.tobytes() for array in self.stored().values())

    @property
    def learned(self) -> dict[str, str]:
        """What was learned beside the pixels, in the words of a contribution."""
        soft = {} if self.soft is None else {"soft_labels": "float16"}
        rate = {} if self.student_rate is None else {"student_lr": rate_text(self.student_rate)}
        return soft | rate

    def stored(self) -> dict[str, np.ndarray]:
        """The arrays as they are kept, in the order of the digest."""
        soft = {} if self.soft is None else {"soft": self.soft}
        return {"images": self.images, "labels": self.labels} | soft

    def arrays(self) -> SyntheticArrays:
        """What networks train on: images in normalised units."""
        lo, hi = decimal_number(self.lo), decimal_number(self.hi)
        soft = None if self.soft is None else self.soft.astype(np.float32)
        images = dequantise(self.images, lo, hi)
        return SyntheticArrays(images, self.labels.copy(), soft, self.student_rate)
