"""What the wire needs to know of a study, in the form in which it stands in a contribution."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Any

from fedcondense.config.privacy import NoPrivacy, Privacy
from fedcondense.config.study import Study
from fedcondense.config.trajectory import LARGEST_RATE, LEAST_RATE

LARGEST_CONTENTS = 64 * 1024  # bytes
CONTENTS_LENGTH = 4  # bytes of the length in front of the contents
CORESETS = frozenset({"random", "herding", "forgetting"})  # methods that pick real images
_RATE_DIGITS = 6  # float32, in which it is learned, has seven
_BOUND_DIGITS = 6
LEAST_BOUND, LARGEST_BOUND = 1e-14, 999_999.0  # what six digits of a decimal string can hold
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,5})(\.[0-9]{1,20})?")


@dataclass(frozen=True)
class Terms:
    """The part of a study that a contribution is checked against; the digest pins the rest.

    `images_per_class` bounds each class of one contribution, `size` is the side of the square
    images in pixels, `recipe` is `recipe_of` the study; `soft_labels` and `learns_rate` say what
    is learned with the pixels and so travels with them; `privacy` is what the study asks for.
    """

    study_digest: str
    classes: tuple[str, ...]
    images_per_class: int
    channels: int
    size: int
    method: str
    start: str
    partition: int
    recipe: dict[str, Any]
    soft_labels: bool
    learns_rate: bool
    privacy: Privacy = field(default_factory=NoPrivacy)

    @property
    def largest_set(self) -> int:
        """The most images of one contribution."""
        return len(self.classes) * self.images_per_class

    @property
    def image_bytes(self) -> int:
        """Bytes of the pixels of one image."""
        return self.channels * self.size * self.size

    @property
    def soft_bytes(self) -> int:
        """Bytes of the soft label of one image: two to a class, or none."""
        return 2 * len(self.classes) if self.soft_labels else 0

    @property
    def body_bytes(self) -> int:
        """The length that every body is padded to: the study's ceiling."""
        each = self.image_bytes + 1 + self.soft_bytes
        return CONTENTS_LENGTH + LARGEST_CONTENTS + self.largest_set * each


def terms_of(study: Study) -> Terms:
    """The terms of `study`."""
    return Terms(
        study_digest=study.digest,
        classes=study.classes,
        images_per_class=study.images_per_class,
        channels=study.image.channels,
        size=study.image.size,
        method=study.distill.method,
        start=study.distill.start.value,
        partition=study.distill.partition,
        recipe=recipe_of(study),
        soft_labels=study.distill.soft_labels,
        learns_rate=study.distill.learns_rate,
        privacy=study.privacy,
    )


def recipe_of(study: Study) -> dict[str, Any]:
    """How images are normalised and how long evaluation trains, without floating-point numbers."""
    image, evaluation = study.image, study.evaluation
    return {
        "image": {
            "channels": image.channels,
            "highest": decimal_text(image.highest),
            "lowest": decimal_text(image.lowest),
            "mean": decimal_text(image.mean),
            "size": image.size,
            "std": decimal_text(image.std),
        },
        "evaluation": {
            "batch": evaluation.batch,
            "length": evaluation.length,
            "networks": evaluation.networks,
            "steps": evaluation.steps,
        },
    }


def decimal_text(number: float) -> str:
    """The shortest decimal digits that read back as `number`: `-4`, `0.25`; never an exponent."""
    text = format(Decimal(repr(number + 0.0)), "f")  # + 0.0: there is no negative zero
    return text.rstrip("0").rstrip(".") if "." in text else text


def decimal_number(text: str) -> float:
    """The number that a decimal string names.

    Raises:
        ValueError: `text` is not the one form that `decimal_text` writes.
    """
    if not _DECIMAL.fullmatch(text) or decimal_text(float(text)) != text:
        raise ValueError("not a decimal string")
    return float(text)


def rate_text(rate: float) -> str:
    """The decimal string of a learned step size, rounded to six significant digits.

    The digits of an arbitrary float can be more than a decimal string holds; six of them at
    `LEAST_RATE` are 13 places, and what is rounded once reads back as itself.

    Raises:
        ValueError: `rate` is not between `LEAST_RATE` and `LARGEST_RATE`.
    """
    if not LEAST_RATE <= rate <= LARGEST_RATE:  # also what is no number
        raise ValueError("not a step size")
    return decimal_text(float(f"{rate:.{_RATE_DIGITS - 1}e}"))


def rate_number(text: str) -> float:
    """The step size that a decimal string names, with however many digits.

    Raises:
        ValueError: `text` is no decimal string between `LEAST_RATE` and `LARGEST_RATE`.
    """
    rate = decimal_number(text)
    if not LEAST_RATE <= rate <= LARGEST_RATE:
        raise ValueError("not a step size")
    return rate


def upper_text(number: float) -> str:
    """The decimal string of an upper bound: six significant digits, rounded up.

    What is smaller than a decimal string holds becomes `LEAST_BOUND`.

    Raises:
        ValueError: `number` is not between 0 and `LARGEST_BOUND`.
    """
    return _bound_text(max(number, LEAST_BOUND) if number >= 0 else number, ROUND_CEILING)


def lower_text(number: float) -> str:
    """The decimal string of a lower bound: six significant digits, rounded down.

    Raises:
        ValueError: `number` is not between `LEAST_BOUND` and `LARGEST_BOUND`.
    """
    return _bound_text(number, ROUND_FLOOR)


def _bound_text(number: float, rounding: str) -> str:
    if not LEAST_BOUND <= number <= LARGEST_BOUND:  # also what is no number
        raise ValueError("not a bound")
    rounded = Context(prec=_BOUND_DIGITS, rounding=rounding).create_decimal(repr(number))
    return decimal_text(float(rounded))
