"""What every figure of a report is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_serializer

Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[int | float, Field(ge=0)]  # a mean number of images need not be whole


class Figures(BaseModel):
    """A frozen group of figures; unknown keys, NaN and infinities are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_by_name=True
    )


class Sparse(Figures):
    """Figures of which those that are None are absent from a file."""

    @model_serializer(mode="wrap")
    def _without_none(self, write: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {name: value for name, value in write(self).items() if value is not None}


class Estimate(Figures):
    """A score: mean and standard deviation over networks, 95 % bootstrap interval over groups.

    `sd` is 0 for a single network.
    """

    mean: float
    sd: float = Field(ge=0)
    low: float
    high: float


class Difference(Figures):
    """Balanced accuracy of one set minus that of another, 95 % paired bootstrap interval."""

    difference: float
    low: float
    high: float
