"""What every figure of a report is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[int | float, Field(ge=0)]  # a mean number of images need not be whole


class Figures(BaseModel):
    """A frozen group of figures; unknown keys, NaN and infinities are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_by_name=True
    )


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
