"""The global synthetic set: the union of what the sites contributed, each image with its site.

Leaving a site out is one call: aggregate the others.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float16, UInt8
from PIL import Image

from fedcondense.config.study import Study
from fedcondense.errors import RunDirectoryError
from fedcondense.exchange.contribution import (
    Payload,
    SyntheticArrays,
    decode_payload,
    quantise,
)
from fedcondense.exchange.sealing import Opened
from fedcondense.exchange.shared_set import SharedSet
from fedcondense.exchange.terms import decimal_text, rate_number, rate_text
from fedcondense.files.storage import (
    read_arrays,
    read_json,
    write_arrays,
    write_atomically,
    write_json,
)

MANIFEST_VERSION = 1


@dataclass(frozen=True)
class GlobalSet:
    """Synthetic images of all sites, sites by name, each site's in its own order.

    `sites` has one name per image; `classes` are the study's; a pixel q means
    lo + q (hi - lo) / 255 in normalised units. Where the study learns them: `soft`, a row of class
    probabilities per image, and `student_rate`, the step size of whoever trains on the set.
    """

    images: UInt8[np.ndarray, "n c h w"] = field(repr=False)
    labels: UInt8[np.ndarray, " n"] = field(repr=False)
    sites: tuple[str, ...] = field(repr=False)
    classes: tuple[str, ...]
    lo: str
    hi: str
    soft: Float16[np.ndarray, "n k"] | None = field(default=None, repr=False)
    student_rate: float | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shared(self) -> SharedSet:
        """The set without the sites' names: what is signed, and what sites are given."""
        return SharedSet(self.images, self.labels, self.lo, self.hi, self.soft, self.student_rate)

    @property
    def sha256(self) -> str:
        """Hex SHA-256 over form and arrays: equal sets, wherever they were made."""
        return self.shared.sha256

    def arrays(self) -> SyntheticArrays:
        """What networks train on: images in normalised units."""
        return self.shared.arrays()


def aggregate(opened: Sequence[Opened], study: Study) -> GlobalSet:
    """Unite contributions in the order of their sites' names, in the study's scale."""
    ordered = sorted(opened, key=lambda contribution: contribution.site)
    spec = study.image
    images = [np.empty((0, spec.channels, spec.size, spec.size), np.uint8)]
    labels = [np.empty(0, np.uint8)]
    images += [_in_scale(contribution.payload, study) for contribution in ordered]
    labels += [contribution.payload.label_array() for contribution in ordered]
    return GlobalSet(
        images=np.concatenate(images),
        labels=np.concatenate(labels),
        sites=tuple(of.site for of in ordered for _ in range(of.payload.shape[0])),
        classes=study.classes,
        lo=decimal_text(spec.lowest),
        hi=decimal_text(spec.highest),
        soft=_united_soft([of.payload for of in ordered], study),
        student_rate=united_rate([of.payload for of in ordered]),
    )


def united_rate(payloads: Sequence[Payload]) -> float | None:
    """The step size for the union: the sites' geometric mean, each weighted by its images.

    A step size is a factor: twice and half of a good one are equally far from it, which their
    logarithms say and they themselves do not, and one site that learned ten times the others'
    does not rule the mean. The weights are the shares that sites have in a batch of the union.
    Rounded as on the wire, so that the last bit of a logarithm is not in the set's digest; None
    where none was learned.
    """
    rates = [rate_number(of.student_rate) for of in payloads if of.student_rate is not None]
    images = [of.shape[0] for of in payloads if of.student_rate is not None]
    if not rates:
        return None
    logarithm = sum(n * math.log(rate) for n, rate in zip(images, rates, strict=True))
    mean = math.exp(logarithm / sum(images))
    within = min(max(mean, min(rates)), max(rates))  # the last bit of exp(log 10) is above 10
    return rate_number(rate_text(within))


def write_global_set(folder: Path, global_set: GlobalSet, study: Study) -> None:
    """Write the set, one picture per image, and last the manifest that names them all."""
    write_arrays(folder / "set.safetensors", global_set.shared.stored())
    names = [_picture_name(global_set, row) for row in range(len(global_set))]
    for name, pixels in zip(names, global_set.images, strict=True):
        write_atomically(folder / "png" / name, _png(pixels))
    write_json(folder / "manifest.json", _manifest(global_set, names, study))


def read_global_set(folder: Path) -> GlobalSet:
    """Read a set that `write_global_set` wrote.

    Raises:
        RunDirectoryError: it is missing, unfinished, or not the one that its manifest names.
    """
    try:
        manifest, arrays = (
            read_json(folder / "manifest.json"),
            read_arrays(folder / "set.safetensors"),
        )
    except OSError:
        raise RunDirectoryError(
            "the global synthetic set is missing or unfinished", hint="conclude the round again"
        ) from None
    rate = manifest.get("student_lr")
    global_set = GlobalSet(
        images=arrays["images"],
        labels=arrays["labels"],
        sites=tuple(image["site"] for image in manifest["images"]),
        classes=tuple(manifest["classes"]),
        lo=manifest["scale"]["lo"],
        hi=manifest["scale"]["hi"],
        soft=arrays.get("soft"),
        student_rate=None if rate is None else rate_number(rate),
    )
    if global_set.sha256 != manifest["sha256"]:
        raise RunDirectoryError(
            "the global synthetic set has changed since it was written",
            hint="delete its folder and conclude the round again",
        )
    return global_set


def _in_scale(payload: Payload, study: Study) -> UInt8[np.ndarray, "n c h w"]:
    """A site may declare another scale; in the study's own the bytes stay as they are."""
    lowest, highest = study.image.lowest, study.image.highest
    if (payload.lo, payload.hi) == (decimal_text(lowest), decimal_text(highest)):
        return payload.pixel_array()
    return quantise(decode_payload(payload).images, lowest, highest)


def _united_soft(payloads: Sequence[Payload], study: Study) -> Float16[np.ndarray, "n k"] | None:
    if not study.distill.soft_labels:
        return None
    rows = [of.soft_array() for of in payloads]
    nobody = np.empty((0, len(study.classes)), np.float16)
    return np.concatenate([nobody, *(soft for soft in rows if soft is not None)])


def _manifest(global_set: GlobalSet, names: list[str], study: Study) -> dict[str, Any]:
    rows = zip(global_set.sites, global_set.labels.tolist(), names, strict=True)
    return {
        "classes": list(global_set.classes),
        "images": [{"label": label, "png": name, "site": site} for site, label, name in rows],
        "scale": {"hi": global_set.hi, "lo": global_set.lo},
        "sha256": global_set.sha256,
        "shape": list(global_set.images.shape),
        "study_digest": study.digest,
        "version": MANIFEST_VERSION,
        **global_set.shared.learned,
    }


def _picture_name(global_set: GlobalSet, row: int) -> str:
    """<site>-<class>-<n>.png; n is the row in the set, as two classes may shorten to one word."""
    label = int(global_set.labels[row])
    word = re.sub("[^a-z0-9]+", "-", global_set.classes[label].lower()).strip("-")[:40]
    return f"{global_set.sites[row]}-{word or label}-{row:04d}.png"


def _png(pixels: UInt8[np.ndarray, "c h w"]) -> bytes:
    """Pixels as stored: grey for one channel, red, green, blue for three."""
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1))
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()
