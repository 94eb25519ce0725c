"""A site's trained experts on its own disk; they never leave it.

One folder holds the experts of one set of images, network and expert settings: every study that
agrees in those finds them trained.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fedcondense.config.site import SiteConfig
from fedcondense.config.study import Study
from fedcondense.data.dataset import LabeledImages
from fedcondense.distill.experts import experts_settings
from fedcondense.distill.trajectories import Course, Expert
from fedcondense.errors import ExpertsRejected
from fedcondense.files.lock import locked
from fedcondense.files.storage import (
    canonical_json,
    read_arrays,
    read_json,
    read_row,
    sha256,
    write_arrays,
    write_json,
)
from fedcondense.learning.randomness import Seed
from fedcondense.site.checkpoint import identity_of

MANIFEST_VERSION = 1
NAME_LENGTH = 16  # hex digits of the identity in the folder's name


class ExpertFiles:
    """One safetensors file an expert, and a manifest that names each with its digest.

    A file without its line in the manifest counts as not written; one that differs from its line
    is refused.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder = folder / identity[:NAME_LENGTH]
        self._identity = identity
        self._courses: dict[int, Course] = {}  # of the experts whose bytes were checked

    def has(self, number: int) -> bool:
        """Whether that expert is trained.

        Raises:
            ExpertsRejected: the folder holds other experts.
        """
        return str(number) in self._manifest()["experts"]

    def keep(self, number: int, expert: Expert) -> None:
        """Write a trained expert, and then its line in the manifest.

        One that somebody else wrote meanwhile stays: whoever reads it has its bytes.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._path(number)
        arrays = {
            "weights": expert.weights.numpy(),
            "losses": expert.course.losses.numpy(),
            "accuracies": expert.course.accuracies.numpy(),
        }
        with locked(self.folder / "lock"):  # several experts may be trained at once
            manifest = self._manifest()
            if str(number) not in manifest["experts"]:
                write_arrays(path, arrays)
                manifest["experts"][str(number)] = _digest(path)
                write_json(self.folder / "manifest.json", manifest)

    def weights(self, number: int, epoch: int) -> Float[Tensor, " p"]:
        """Flat weights after `epoch` epochs, read from disk one row at a time.

        Raises:
            ExpertsRejected: the file has changed.
        """
        self.course(number)
        return torch.from_numpy(read_row(self._path(number), "weights", epoch).copy())

    def course(self, number: int) -> Course:
        """How it learned; the file is compared with the manifest and read whole, once.

        Raises:
            ExpertsRejected: the file has changed.
        """
        if number not in self._courses:
            path = self._path(number)
            listed = self._manifest()["experts"].get(str(number))
            if not path.exists() or _digest(path) != listed:
                raise self._rejected("have changed on disk")
            arrays = read_arrays(path)
            losses, accuracies = (
                torch.from_numpy(arrays[name].copy()) for name in ("losses", "accuracies")
            )
            self._courses[number] = Course(losses, accuracies)
        return self._courses[number]

    def _path(self, number: int) -> Path:
        return self.folder / f"expert-{number:03d}.safetensors"

    def _manifest(self) -> dict[str, Any]:
        try:
            manifest = read_json(self.folder / "manifest.json")
        except FileNotFoundError:
            return {"experts": {}, "identity": self._identity, "version": MANIFEST_VERSION}
        except ValueError:
            manifest = None
        if not isinstance(manifest, dict) or manifest.get("identity") != self._identity:
            raise self._rejected("are those of other images or another study")
        return manifest

    def _rejected(self, fault: str) -> ExpertsRejected:
        return ExpertsRejected(
            f"the experts in {self.folder} {fault}",
            hint="delete that folder: they are trained anew",
        )


def experts_of(
    site: SiteConfig, study: Study, train: LabeledImages, seed: Seed, *, global_sha256: str = ""
) -> ExpertFiles:
    """Where this site keeps experts for this study.

    What decides is all that an expert depends on: its settings, the network, the form of images,
    the classes, the seed that the method is given, the images themselves, and from the second
    round on the global set by its digest.
    """
    parts = {
        "experts": experts_settings(study).model_dump(mode="json", exclude={"count"}),
        **study.model_dump(mode="json", include={"network", "image", "classes"}),
    }
    if global_sha256:
        parts["begins_with"] = global_sha256
    identity = identity_of(sha256(canonical_json(parts)), seed.value, train)
    return ExpertFiles(site.experts or site.state / "experts", identity)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
