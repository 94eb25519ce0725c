"""One model per distillation method and preset; each default stands once, with its source."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from fedcondense.config.loading import Settings


class Start(StrEnum):
    """Where synthetic pixels begin."""

    NOISE = "noise"
    REAL = "real"  # for research; the gate never releases what began as a patient


class AccuracyReading(StrEnum):
    """How a network's running accuracy enters the class regularisation of IDM."""

    PERCENT = "percent"  # 0..100, as the published commands have it
    FRACTION = "fraction"  # 0..1, as the paper has it; better in a small budget


class Family(StrEnum):
    """The families of differentiable siamese augmentation (Zhao & Bilen 2021, DSA)."""

    COLOR = "color"
    CROP = "crop"
    CUTOUT = "cutout"
    FLIP = "flip"
    SCALE = "scale"
    ROTATE = "rotate"


ALL_FAMILIES = tuple(Family)


class Idm(Settings):
    """Improved distribution matching (Zhao et al., CVPR 2023), preset `short`.

    `short` is ours, chosen on radiographs at 32 px for one core and about a minute.
    """

    method: Literal["idm"] = Field(description="improved distribution matching")
    preset: Literal["short"] = Field("short", description="which defaults the other keys have")
    start: Start = Field(
        Start.NOISE, description="where synthetic pixels begin; `real` is never released"
    )
    partition: int = Field(
        2, ge=1, le=4, description="l, eq. 3: one stored image carries l x l; divides image.size"
    )
    iterations: int = Field(300, ge=1, le=1_000_000, description="steps of the synthetic pixels")
    image_rate: float = Field(5.0, gt=0, le=1e4, description="step size of the synthetic pixels")
    image_momentum: float = Field(0.5, ge=0, lt=1, description="momentum of the synthetic pixels")
    per_class_momentum: bool = Field(
        default=True, description="momentum as the published per-class loop has it"
    )
    class_weight: float = Field(0.5, ge=0, le=100, description="lambda, eq. 5")
    accuracy_reading: AccuracyReading = Field(
        AccuracyReading.FRACTION, description="a network's accuracy in eq. 5: 0..1 or 0..100"
    )
    accuracy_reset_interval: int | None = Field(
        None, ge=1, description="iterations after which running accuracies begin anew; none: never"
    )
    real_batch: int = Field(64, ge=1, le=65_536, description="real images per class and iteration")
    queue_length: int = Field(20, ge=1, le=1_000, description="most networks in the model queue")
    queue_start: int = Field(3, ge=1, le=1_000, description="networks in the queue at the start")
    push_interval: int | None = Field(
        None, ge=1, description="iterations between new networks; none: a fortieth of all"
    )
    trained_networks: int = Field(2, ge=1, le=100, description="networks trained per iteration")
    training_steps: int = Field(2, ge=1, le=1_000, description="K, steps per trained network")
    training_batch: int = Field(
        64, ge=1, le=65_536, description="real images per step of a queue network"
    )
    class_balanced_training: bool = Field(
        default=True, description="equally many images of each class in that batch"
    )
    training_rate: float = Field(0.01, gt=0, le=10, description="step size of queue networks")
    training_momentum: float = Field(0.9, ge=0, lt=1, description="momentum of queue networks")
    weight_decay: float = Field(5e-4, ge=0, lt=1, description="weight decay of queue networks")
    families: tuple[Family, ...] = Field(
        ALL_FAMILIES, description="augmentation families; empty: no augmentation"
    )

    @property
    def pushes_every(self) -> int:
        """Iterations between two new networks in the queue."""
        return self.push_interval or max(1, self.iterations // 40)


class PublishedIdm(Idm):
    """Preset `published`: the authors' command for CIFAR-10 at 10 images per class."""

    preset: Literal["published"]  # type: ignore[assignment]
    iterations: int = Field(20_000, ge=1, le=1_000_000)
    image_rate: float = Field(0.2, gt=0, le=1e4)
    accuracy_reading: AccuracyReading = AccuracyReading.PERCENT
    accuracy_reset_interval: int | None = Field(100, ge=1)
    real_batch: int = Field(256, ge=1, le=65_536)
    queue_length: int = Field(100, ge=1, le=1_000)
    push_interval: int | None = Field(30, ge=1)
    training_steps: int = Field(10, ge=1, le=1_000)
    training_batch: int = Field(256, ge=1, le=65_536)
    class_balanced_training: bool = False


def _preset_of(values: Any) -> str | None:
    if isinstance(values, Idm):
        return values.preset
    preset = values.get("preset", "short") if isinstance(values, dict) else None
    return preset if isinstance(preset, str) else None


Method = Annotated[
    Annotated[Idm, Tag("short")] | Annotated[PublishedIdm, Tag("published")],
    Discriminator(
        _preset_of,
        custom_error_type="unknown_preset",
        custom_error_message="preset: Input should be 'short' or 'published'",
    ),
]
