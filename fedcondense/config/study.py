"""What all sites agree on, pinned by its digest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedcondense.config.loading import Settings, load_settings
from fedcondense.config.methods import ALL_FAMILIES, Family, Method
from fedcondense.files.storage import canonical_json, sha256

LARGEST_CONTRIBUTION = 64 * 2**20  # bytes; Flower's database locks far above it
ClassName = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f/\\]+$")]


class ImageSpec(Settings):
    """The form in which every site presents its images, and synthetic ones travel.

    Networks see (value / 255 - mean) / std. The constants are the study's, equal at all sites and
    never computed from one site's images. Synthetic pixels travel as uint8 between `lowest` and
    `highest`, in these normalised units.
    """

    size: int = Field(32, ge=16, le=512, description="side of the square image in pixels")
    channels: Literal[1, 3] = 1
    mean: float = Field(0.5, ge=0, le=1)
    std: float = Field(0.25, gt=0, le=1)
    lowest: float = Field(-4.0, ge=-16, lt=0)
    highest: float = Field(4.0, gt=0, le=16)


class NetworkSpec(Settings):
    """A ConvNet: `depth` blocks of `width` channels."""

    width: int = Field(32, ge=4, le=1024)
    depth: int = Field(3, ge=1, le=8)


class EvaluationProtocol(Settings):
    """How a set is scored: fresh networks, one recipe and one length for all sets compared.

    The recipe is the papers': SGD .01, momentum .9, weight decay 5e-4, augmentation per sample,
    a tenth of the rate from half the length on.
    """

    networks: int = Field(5, ge=1, le=100)
    length: Literal["short", "paper"] = Field(
        "short", description="short: `steps` steps; paper: 1,001 epochs of batches of 256"
    )
    steps: int = Field(500, ge=1, le=1_000_000)
    batch: int = Field(64, ge=2, le=4096)
    synthetic_share: float = Field(
        0.25, gt=0, lt=1, description="share of each batch that is synthetic in `site_joined`"
    )
    families: tuple[Family, ...] = ALL_FAMILIES
    resamples: int = Field(2_000, ge=100, le=100_000, description="bootstrap resamples of groups")


class Study(Settings):
    """What all sites agree on."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")
    classes: tuple[ClassName, ...] = Field(min_length=2, max_length=255)
    image: ImageSpec = ImageSpec()
    network: NetworkSpec = NetworkSpec()
    images_per_class: int = Field(ge=1, le=1_000, description="ipc, per class and site")
    distill: Method
    evaluation: EvaluationProtocol = EvaluationProtocol()
    quorum: int = Field(ge=1, le=1_000, description="sites without which nothing is opened")
    seed: int = Field(0, ge=0, lt=2**63, description="public seed: evaluation")

    @model_validator(mode="after")
    def _fits_together(self) -> Study:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes: each class stands once")
        if self.image.size >> (self.network.depth - 1) < 2:
            raise ValueError(
                f"network.depth: {self.network.depth} halvings leave less than 2 x 2 pixels of "
                f"{self.image.size}; a norm over one pixel is always zero"
            )
        if self.image.size % self.distill.partition:
            raise ValueError(
                f"distill.partition: {self.distill.partition} does not divide "
                f"image.size {self.image.size}"
            )
        if self.largest_payload > LARGEST_CONTRIBUTION - 2**17:
            raise ValueError(
                f"images_per_class: a contribution of {self.largest_payload} bytes is above 64 MiB"
            )
        return self

    @property
    def largest_set(self) -> int:
        """The most synthetic images that one site may contribute."""
        return len(self.classes) * self.images_per_class

    @property
    def largest_payload(self) -> int:
        """Bytes of pixels and labels of the largest set."""
        return self.largest_set * (self.image.channels * self.image.size**2 + 1)

    @property
    def digest(self) -> str:
        """SHA-256 of the study's canonical JSON; what sites and server pin."""
        return sha256(canonical_json(self.model_dump(mode="json")))


def load_study(path: Path) -> Study:
    """Read a study file.

    Raises:
        SettingsError: the file is not a study.
    """
    return load_settings(Study, path)
