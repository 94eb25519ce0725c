"""A site's images in one npz file, in the form of docs/ref-data.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from fedcondense.config.study import ImageSpec
from fedcondense.data.dataset import LabeledImages
from fedcondense.data.groups import Grouping, image_name, refuse_partly_named
from fedcondense.data.npz import npz_bytes, read_npz
from fedcondense.data.radiograph import fit
from fedcondense.errors import DataError
from fedcondense.files.storage import write_atomically
from fedcondense.progress import Step, Watch

LARGEST_NAME = 1024  # characters of one text value
SMALLEST_SIDE = 8  # pixels; so an axis of 1 or 3 can only be the channels
BATCH = 256  # images resized at once
REQUIRED = ("images", "labels", "class_names")
TEXTS = ("group", "patient_id", "site", "split")
SPLITS = ("train", "test", "")


def read_archive(
    path: Path, spec: ImageSpec, watch: Watch, grouping: Grouping = Grouping.COPIES
) -> LabeledImages:
    """Read an npz in the form of docs/ref-data.md; classes keep the archive's numbers.

    Raises:
        DataError: the file is not such an archive; one line says why.
    """
    arrays = read_npz(path, required=REQUIRED, optional=TEXTS)
    _check_columns(arrays, path.name)
    splits = _texts(arrays, "split")
    _check_splits(splits, path.name)
    return LabeledImages(
        _resize(arrays["images"], spec, watch),
        torch.from_numpy(arrays["labels"].astype(np.int64)),
        tuple(arrays["class_names"].tolist()),
        _groups(arrays, grouping),
        _texts(arrays, "site"),
        splits,
        _texts(arrays, "patient_id"),
    )


def save_images(images: LabeledImages, path: Path) -> None:
    """Write `images` atomically as an npz in the form of docs/ref-data.md.

    All class names are kept, also those without an image. Equal images give equal bytes.
    """
    arrays: dict[str, np.ndarray] = {
        "images": images.images.numpy(),
        "labels": images.labels.numpy(),
        "class_names": np.array(images.classes, dtype=np.str_),
    }
    texts = {
        "group": images.groups,
        "patient_id": images.patients,
        "site": images.sites,
        "split": images.splits,
    }
    for key, column in texts.items():
        if column is not None:
            arrays[key] = np.array(column, dtype=np.str_)
    write_atomically(path, npz_bytes(arrays), mode=0o600)


def _refuse(name: str, problem: str, hint: str) -> DataError:
    return DataError(f"{name}: {problem}", hint=hint)


def _check_columns(arrays: dict[str, np.ndarray], name: str) -> None:
    _check_images(arrays["images"], name)
    n = len(arrays["images"])
    _check_texts(arrays, name)
    for key in ("labels", *TEXTS):
        if key in arrays and arrays[key].shape != (n,):
            raise _refuse(
                name,
                f"{key} has shape {arrays[key].shape}, expected ({n},)",
                "give one value to each image",
            )
    _check_labels(arrays["labels"], arrays["class_names"], name)


def _check_images(images: np.ndarray, name: str) -> None:
    if images.dtype != np.uint8:
        not_numbers = images.dtype.kind == "f" and not np.isfinite(images).all()
        found = f"{images.dtype}, some not finite" if not_numbers else str(images.dtype)
        raise _refuse(
            name, f"images must be uint8, found {found}", "scale grey values to 0 ... 255 and round"
        )
    channel_axis = _channel_axis(images)
    sides = [n for axis, n in enumerate(images.shape) if axis not in (0, channel_axis)]
    if len(sides) != 2 or min(sides) < SMALLEST_SIDE:
        raise _refuse(
            name,
            f"images have shape {images.shape}, expected (N, H, W), (N, H, W, C) or (N, C, H, W)",
            f"C is 1 or 3, H and W are at least {SMALLEST_SIDE}",
        )
    if len(images) == 0:
        raise _refuse(name, "holds no images", "see docs/ref-data.md for the form")


def _channel_axis(images: np.ndarray) -> int | None:
    """The axis of four that has 1 or 3 entries; None where there is none."""
    if images.ndim != 4:
        return None
    return next((axis for axis in (3, 1) if images.shape[axis] in (1, 3)), None)


def _check_texts(arrays: dict[str, np.ndarray], name: str) -> None:
    for key in ("class_names", *TEXTS):
        if key not in arrays:
            continue
        column = arrays[key]
        if column.dtype.kind != "U" or column.ndim != 1 or column.dtype.itemsize > 4 * LARGEST_NAME:
            raise _refuse(
                name,
                f"{key} is {column.dtype} with shape {column.shape}, expected a row of texts",
                "convert it with np.asarray(values).astype(str)",
            )
        try:
            "".join(column.tolist()).encode()
        except ValueError:
            raise _refuse(
                name, f"{key} holds text that is not Unicode", "write it with np.savez_compressed"
            ) from None
    names = arrays["class_names"].tolist()
    if "" in names or len(set(names)) < len(names):
        raise _refuse(name, "class_names has an empty or repeated name", "name each class once")


def _check_labels(labels: np.ndarray, class_names: np.ndarray, name: str) -> None:
    if labels.dtype.kind not in "iu":
        raise _refuse(
            name, f"labels are {labels.dtype}, expected integers", "number the classes from 0"
        )
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= len(class_names):
        raise _refuse(
            name,
            f"labels run from {lowest} to {highest}, expected 0 to {len(class_names) - 1}",
            "a label is a row number of class_names",
        )


def _check_splits(splits: tuple[str, ...] | None, name: str) -> None:
    if unknown := sorted(set(splits or ()) - set(SPLITS)):
        raise _refuse(
            name,
            f"split has the unknown word {unknown[0]!r}",
            "use train or test, or an empty text to leave it open",
        )


def _texts(arrays: dict[str, np.ndarray], key: str) -> tuple[str, ...] | None:
    return tuple(arrays[key].tolist()) if key in arrays else None


def _groups(arrays: dict[str, np.ndarray], grouping: Grouping) -> tuple[str, ...]:
    """Each row's group; else its patient's group or id; else a name by its content.

    By `PATIENTS` no row takes the group of another.
    """
    nothing = ("",) * len(arrays["images"])
    given = _texts(arrays, "group") or nothing
    patients = _texts(arrays, "patient_id") or nothing
    if grouping is Grouping.PATIENTS:
        refuse_partly_named(patients, given, what="group")
    # a patient whose films partly have a group must not fall apart into two
    group_of = {p: g for g, p in zip(given, patients, strict=True) if g and p}
    units = [g or group_of.get(p, p) for g, p in zip(given, patients, strict=True)]
    names = arrays["class_names"][arrays["labels"]].tolist()
    splits = _texts(arrays, "split") or nothing
    return tuple(
        unit or image_name(arrays["images"][row], names[row], splits[row])
        for row, unit in enumerate(units)
    )


def _resize(images: np.ndarray, spec: ImageSpec, watch: Watch) -> UInt8[Tensor, "n c h w"]:
    channel_axis = _channel_axis(images)
    planar = images[:, None] if channel_axis is None else np.moveaxis(images, channel_axis, 1)
    resized = torch.empty(len(planar), spec.channels, spec.size, spec.size, dtype=torch.uint8)
    for start in range(0, len(planar), BATCH):
        part = planar[start : start + BATCH].astype(np.float32)
        resized[start : start + BATCH] = fit(torch.from_numpy(part), spec)
        watch(Step("reading images", start + len(part), len(planar)))
    return resized
