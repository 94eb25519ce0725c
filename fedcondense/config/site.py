"""What a hospital decides alone."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fedcondense.config.loading import Settings, load_settings
from fedcondense.config.privacy import Budget, Declared

SiteName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

LAST_PORT = 65_535

Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda:\d+)$")]


class BurnedIn(StrEnum):
    """What DICOM's `BurnedInAnnotation` may say of an image that is read."""

    REFUSE = "refuse"
    UNSTATED = "unstated"
    ALLOW = "allow"


class _ImageFiles(Settings):
    burned_in: BurnedIn = Field(
        BurnedIn.REFUSE,
        description="DICOM only. `refuse`: images that say NO to burned-in annotation (names "
        "written into the pixels); `unstated`: those that say nothing too; `allow`: all",
    )


class ImageFolder(_ImageFiles):
    """A folder of class folders."""

    kind: Literal["folder"] = Field(description="a folder of class folders")
    path: Path = Field(description="the folder")


class ImageCsv(_ImageFiles):
    """A CSV file with a row for each image: `path`, `label`, `patient_id`, perhaps `site`."""

    kind: Literal["csv"] = Field(description="a CSV file that lists image files")
    path: Path = Field(description="the CSV file")
    root: Path | None = Field(
        None, description="folder that its paths are relative to; left out: the CSV file's own"
    )


class ImageNpz(Settings):
    """An npz archive in the form of docs/ref-data.md."""

    kind: Literal["npz"] = Field(description="an npz archive")
    path: Path = Field(description="the archive")


class Phantoms(Settings):
    """Procedural chest phantoms; a score on them is never a claim about patients."""

    kind: Literal["phantoms"] = Field(description="drawn, nothing is read")
    images_per_class: int = Field(300, ge=8, le=20_000, description="images of each class")
    scanners: int = Field(3, ge=1, le=20, description="scanner looks, one to a site")
    size: int = Field(64, ge=16, le=512, description="side in pixels as drawn")
    seed: int = Field(0, ge=0, lt=2**63, description="another seed draws other patients")


ImageSource = Annotated[ImageFolder | ImageCsv | ImageNpz | Phantoms, Field(discriminator="kind")]


class ReleasePolicy(Settings):
    """What the site asks of a release; it can ask for more than the gate, never for less."""

    min_patients_per_class: int = Field(
        100,
        ge=1,
        description="a class with fewer groups is left out: small classes leak. Under differential "
        "privacy its noised count of units decides: with unit image, of images",
    )
    held_out: float = Field(
        0.2,
        ge=0,
        le=0.5,
        description="share of each class's groups that the method never sees, for the audits; "
        "below 0.2 no audit counts and nothing is released",
    )
    audits: Literal["quick", "full"] = Field(
        "quick", description="quick: provenance and memorisation; full: membership inference too"
    )
    attempts: int = Field(
        2, ge=1, le=10, description="sets per study and round that the gate looks at"
    )
    needs_approval: bool = Field(
        default=False, description="nothing leaves before the data officer has signed it"
    )
    officer: str | None = Field(
        None, description="fingerprint of the data officer's key; needed by `needs_approval`"
    )
    officer_key: Path | None = Field(
        None, description="where `approve` finds the officer's key: best on the officer's own stick"
    )


def _with_a_port(address: str) -> str:
    if not 0 < int(address.rpartition(":")[2]) <= LAST_PORT:
        raise ValueError(f"server.address: a port is from 1 to {LAST_PORT}")
    return address


HostAndPort = Annotated[
    str,
    Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9A-Fa-f:.]+\]):\d{1,5}$"),
    AfterValidator(_with_a_port),
]


class ServerAddress(Settings):
    """Whom a deployed site connects to; it never listens itself."""

    address: HostAndPort = Field(description="of the server's public port")
    authority: Path = Field(
        description="the certificate (PEM) of the authority that issued the server's; no other "
        "is trusted"
    )


MessageType = Literal["query.hello", "train.contribute", "query.result"]


class SiteLimits(Settings):
    """What the site answers at most, whatever study it agreed to; beyond it, no image is read."""

    max_rounds: int = Field(10, ge=1, le=1_000, description="rounds of a study")
    max_requests_per_round: int = Field(
        50, ge=1, le=10_000, description="requests for a contribution to one round of one study"
    )
    max_synthetic_images: int = Field(
        20_000, ge=1, le=1_000_000, description="of one contribution: classes x ipc"
    )
    max_megabytes_in: int = Field(
        64, ge=1, le=64, description="size of what the server sends with one request"
    )
    messages: tuple[MessageType, ...] = Field(
        ("query.hello", "train.contribute", "query.result"),
        min_length=1,
        description="types of messages that are answered",
    )


class KeyFiles(Settings):
    """Where the site's own keys are, if not in `keys/` of its state directory."""

    signing: Path | None = Field(None, description="signs contributions; as `init` wrote it")
    node: Path | None = Field(None, description="opens the connection; as `init` wrote it")


Said = Annotated[str, Field(min_length=1, max_length=300)]


class About(Settings):
    """What the site says of its data, for its own data officer: on the page, never on the wire."""

    modality: Said | None = Field(None, description="what was imaged and how")
    inclusion: Said | None = Field(None, description="by which rule patients are in the data")
    period: Said | None = Field(None, description="when the images were taken")
    legal_basis: Said | None = Field(None, description="on which the data is used")
    ethics: Said | None = Field(None, description="number of the ethics committee's vote")
    dpia: Said | None = Field(None, description="where the impact assessment is")


class SiteConfig(Settings):
    """One hospital: its images, its state directory, and what it pins of the study."""

    name: SiteName = Field(description="the name it is enrolled under")
    seed: int = Field(ge=0, lt=2**63, description="start, sampling and augmentation at this site")
    images: ImageSource = Field(description="where the images come from")
    state: Path = Field(description="directory of the site's own, mode 0700")
    experts: Path | None = Field(
        None, description="where trained experts are kept; left out: in the state directory"
    )
    study: Path = Field(description="the study file that this site agreed to")
    study_digest: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the study that this site agreed to"
    )
    run_signing_fingerprint: str = Field(
        description="of the server's run-signing key; learned out of band, never on first use"
    )
    threads: int = Field(1, ge=1, le=256, description="of the computation; equal bits need 1")
    device: Device = Field("cpu", description="`auto` takes the first CUDA device, or the CPU")
    release: ReleasePolicy = Field(ReleasePolicy(), description="what it asks of a release")
    population: SiteName = Field(
        "patients", description="whose ledger is charged: all studies on the same patients share it"
    )
    ledger: Budget | None = Field(
        None,
        description="the only budget: without it a study with differential privacy is refused, "
        "with it a study without",
    )
    declared: Declared | None = Field(
        None, description="numbers that the site makes public; needed by differential privacy"
    )
    about: About = Field(
        About(), description="what the data officer's page says of the data; it stays at the site"
    )
    server: ServerAddress | None = Field(
        None, description="needed by `check` and `join`; a simulated site has none"
    )
    limits: SiteLimits = Field(SiteLimits(), description="what it answers at most")
    keys: KeyFiles = Field(KeyFiles(), description="where its keys are")
    bundles: tuple[Sha256, ...] = Field(
        (),
        description="further Flower bundles (SHA-256) whose requests are answered, beside that of "
        "the installed package; code in a bundle never runs, whatever stands here",
    )

    @property
    def signing_key(self) -> Path:
        """The file of the key that signs contributions."""
        return self.keys.signing or self.state / "keys" / "signing.key"

    @property
    def ledger_folder(self) -> Path:
        """The folder of the ledgers, a file for each population."""
        return self.state / "ledger"

    @property
    def node_key(self) -> Path:
        """The file of the key that opens the connection."""
        return self.keys.node or self.state / "keys" / "node.key"


def load_site(path: Path) -> SiteConfig:
    """Read a SITE.toml; what it names by a relative path lies beside it.

    Raises:
        SettingsError: the file is no TOML, or any of its keys is wrong.
    """
    return load_settings(SiteConfig, path)
