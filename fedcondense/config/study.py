"""What all sites agree on, pinned by its digest."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, model_validator

from fedcondense.config.coresets import Coreset
from fedcondense.config.loading import Settings, load_settings
from fedcondense.config.matching import Queue
from fedcondense.config.methods import Method
from fedcondense.config.privacy import METHODS_OF, NoPrivacy, Privacy
from fedcondense.config.synthesis import ALL_FAMILIES, Family, Start
from fedcondense.errors import InternalError
from fedcondense.files.storage import canonical_json, sha256

LARGEST_GLOBAL_SET = 63_000_000  # bytes; a site takes in at most 64 MB with one request
LARGEST_CONTRIBUTION = 64 * 2**20  # bytes; Flower's database locks far above it
MOST_ROUNDS = 30  # a record names at most 64 charged rows, and a round charges two at most
PublicSeed = Annotated[int, Field(ge=0, lt=2**63)]
Kind = TypeVar("Kind")
ClassName = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f/\\]+$")]


class ImageSpec(Settings):
    """The form in which every site presents its images, and synthetic ones travel.

    Networks see (value / 255 - mean) / std. The constants are the study's, equal at all sites and
    never computed from one site's images. Synthetic pixels travel as uint8 between `lowest` and
    `highest`, in these normalised units.
    """

    size: int = Field(32, ge=16, le=512, description="side of the square image in pixels")
    channels: Literal[1, 3] = Field(1, description="1: grey; 3: colour")
    mean: float = Field(0.5, ge=0, le=1, description="networks see (value / 255 - mean) / std")
    std: float = Field(0.25, gt=0, le=1, description="see mean")
    lowest: float = Field(
        -4.0, ge=-16, lt=0, description="normalised value that a synthetic pixel of 0 means"
    )
    highest: float = Field(
        4.0, gt=0, le=16, description="normalised value that a synthetic pixel of 255 means"
    )


class Architecture(StrEnum):
    """The networks of the papers' cross-architecture tables, in their form for small images."""

    CONVNET = "convnet"
    ALEXNET = "alexnet"
    VGG11 = "vgg11"
    RESNET18 = "resnet18"


class NetworkSpec(Settings):
    """A ConvNet of `depth` blocks of `width` channels, or one of fixed shape."""

    architecture: Architecture = Field(
        Architecture.CONVNET, description="the others ignore width and depth"
    )
    width: int = Field(32, ge=4, le=1024, description="channels of each block")
    depth: int = Field(3, ge=1, le=8, description="blocks; the last must still see 2 x 2 pixels")


class EvaluationProtocol(Settings):
    """How a set is scored: fresh networks, one recipe and one length for all sets compared.

    The recipe is the papers': SGD .01, momentum .9, weight decay 5e-4, augmentation per sample,
    a tenth of the rate from half the length on.
    """

    networks: int = Field(5, ge=1, le=100, description="fresh networks to a set")
    length: Literal["short", "paper"] = Field(
        "short", description="short: `steps` steps; paper: 1,001 epochs of batches of 256"
    )
    steps: int = Field(500, ge=1, le=1_000_000, description="training steps under `short`")
    batch: int = Field(64, ge=2, le=4096, description="images per step under `short`")
    synthetic_share: float = Field(
        0.25, gt=0, lt=1, description="share of each batch that is synthetic in `site_joined`"
    )
    synthetic_until: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the steps after which `site_joined` goes on with real images alone",
    )
    families: tuple[Family, ...] = Field(
        ALL_FAMILIES, description="augmentation families; empty: no augmentation"
    )
    resamples: int = Field(2_000, ge=100, le=100_000, description="bootstrap resamples of groups")


class Study(Settings):
    """What all sites agree on."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$", description="what people call it")
    classes: tuple[ClassName, ...] = Field(
        min_length=2, max_length=255, description="names in order; the order is the labels'"
    )
    image: ImageSpec = Field(ImageSpec(), description="the form of images")
    network: NetworkSpec = Field(NetworkSpec(), description="the ConvNet that matches and scores")
    images_per_class: int = Field(
        ge=1, le=1_000, description="ipc: stored synthetic images per class and site"
    )
    distill: Method = Field(description="the method and its settings")
    privacy: Privacy = Field(NoPrivacy(), description="what a release guarantees formally")
    evaluation: EvaluationProtocol = Field(EvaluationProtocol(), description="how sets are scored")
    quorum: int = Field(ge=1, le=1_000, description="sites without which nothing is opened")
    rounds: int = Field(
        1,
        ge=1,
        le=MOST_ROUNDS,
        description="from the second on sites refine: they begin with the last global synthetic "
        "set; a guarantee covers all of them",
    )
    seed: PublicSeed = Field(0, description="public seed: evaluation")

    @model_validator(mode="after")
    def _fits_together(self) -> Study:
        if problems := "; ".join(self._contradictions()):
            raise ValueError(problems)
        return self

    def _contradictions(self) -> Iterator[str]:
        size, depth, partition = self.image.size, self.network.depth, self.distill.partition
        if len(set(self.classes)) < len(self.classes):
            yield "classes: each class stands once"
        convnet = self.network.architecture is Architecture.CONVNET
        if convnet and size >> (depth - 1) < 2:
            yield (
                f"network.depth: {depth} blocks leave less than 2 x 2 pixels of {size} to the "
                "last; a norm over one pixel is always zero"
            )
        if size % partition:
            yield f"distill.partition: {partition} does not divide image.size {size}"
        if self.largest_payload > LARGEST_CONTRIBUTION - 2**17:
            yield (
                f"images_per_class: a contribution of {self.largest_payload} bytes is above 64 MiB"
            )
        yield from self._unrepeatable()
        yield from self._unprivate()

    def _unrepeatable(self) -> Iterator[str]:
        """Why a second round could not begin with what the first one gave."""
        if self.rounds == 1:
            return
        if isinstance(self.distill, Coreset):
            yield f"rounds: {self.distill.method} picks images once, a further round learns nothing"
        if not self.fits_a_request(self.quorum):
            yield "rounds: the global set of a quorum is above the 64 MB that sites take in"

    def _unprivate(self) -> Iterator[str]:
        """What would void the guarantee that the study asks for."""
        mode, method = self.privacy.mode, self.distill.method
        if mode == "none":
            return
        if method not in METHODS_OF[mode]:
            allowed = " and ".join(sorted(METHODS_OF[mode]))
            yield f"privacy.mode: {mode} is for {allowed}, not for {method}"
        if self.distill.start is Start.REAL:
            yield "distill.start: a real start voids every guarantee; start from noise"
        if getattr(self.distill, "queue", Queue.ONLINE) is Queue.EXPERTS:
            yield "distill.queue: experts are trained on patients; dp-embed reads them once only"

    def settings(self, kind: type[Kind]) -> Kind:
        """The settings of the method, for those who serve methods of one kind.

        Raises:
            InternalError: the study's method is of another kind.
        """
        if not isinstance(self.distill, kind):
            raise InternalError(
                f"{self.distill.method} was asked for {kind.__name__}", hint="report this error"
            )
        return self.distill

    @property
    def largest_set(self) -> int:
        """The most synthetic images that one site may contribute."""
        return len(self.classes) * self.images_per_class

    @property
    def largest_payload(self) -> int:
        """Bytes of pixels and labels, soft ones included, of the largest set."""
        soft = 2 * len(self.classes) if self.distill.soft_labels else 0
        return self.largest_set * (self.image.channels * self.image.size**2 + 1 + soft)

    def fits_a_request(self, sites: int) -> bool:
        """Whether the largest union of so many sites can be sent back to them."""
        return sites * self.largest_payload <= LARGEST_GLOBAL_SET

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
