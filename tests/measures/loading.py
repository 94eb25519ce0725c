"""How fast films are read from a hospital's files, the first time and from the cache.

    PYTHONPATH=tests/kits .venv/bin/python tests/measures/loading.py --films 5000

Phantoms are written as PNG, JPEG and uncompressed 12-bit DICOM into two class folders, and read as
a site reads them: decoded, scaled down, copies of one film found. One thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from dicom_kit import write_dicom
from PIL import Image

from fedcondense.config.site import ImageFolder, Phantoms
from fedcondense.config.study import ImageSpec
from fedcondense.data.loading import load_images
from fedcondense.data.phantoms import draw_phantoms
from fedcondense.files.environment import this_environment

CLASSES = ("one", "two")
DRAWN = 64  # phantoms that are drawn; every film is one of them with noise of its own


def films(count: int, side: int) -> list[np.ndarray]:
    """8-bit films, no two alike."""
    drawn = draw_phantoms(Phantoms(kind="phantoms", images_per_class=DRAWN // 4, size=side))
    random = np.random.default_rng(0)
    noise = random.integers(0, 24, (count, side, side), dtype=np.uint8)
    return [
        np.minimum(drawn.images[number % DRAWN, 0].numpy(), 231) + noise[number]
        for number in range(count)
    ]


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Losslessly compressed."""
    Image.fromarray(pixels).save(path.with_suffix(".png"))


def write_jpeg(path: Path, pixels: np.ndarray) -> None:
    """As exported by most archives."""
    Image.fromarray(pixels).save(path.with_suffix(".jpg"), quality=92)


def write_film(path: Path, pixels: np.ndarray) -> None:
    """As it comes from the machine, 12 of 16 bits."""
    write_dicom(path.with_suffix(".dcm"), pixels.astype(np.uint16) * 16, bits=12)


WRITERS: dict[str, Callable[[Path, np.ndarray], None]] = {
    "PNG": write_png,
    "JPEG": write_jpeg,
    "DICOM": write_film,
}


def rates(folder: Path, count: int) -> list[float]:
    """Films a second, the first and the second time."""
    source = ImageFolder(kind="folder", path=folder / "films")
    found = []
    for _ in range(2):
        began = time.perf_counter()
        images = load_images(source, ImageSpec(size=112), cache=folder / "cache")
        found.append(count / (time.perf_counter() - began))
        if len(images) != count:
            raise SystemExit(f"{len(images)} of {count} films were read")
    return found


def main() -> None:
    """Write and read each format; print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--films", type=int, default=5_000)
    parser.add_argument("--side", type=int, default=256, help="of a film, in pixels")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    environment = this_environment("cpu", threads=1)
    print(
        f"{asked.films} films of {asked.side} px to 112 px; {environment.cpu}, {environment.date}"
    )
    print("| format | films a second, first time | from the cache |\n|---|---|---|")
    drawn = films(asked.films, asked.side)
    for name, write in WRITERS.items():
        with tempfile.TemporaryDirectory() as scratch:
            for place, pixels in enumerate(drawn):
                path = Path(scratch) / "films" / CLASSES[place % 2] / f"{place:05d}"
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path, pixels)
            first, second = rates(Path(scratch), asked.films)
            print(f"| {name} | {first:,.0f} | {second:,.0f} |")


if __name__ == "__main__":
    main()
