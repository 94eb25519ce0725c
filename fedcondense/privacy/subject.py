"""What an audit is about: a decoded set, and the images that it is held against."""

from __future__ import annotations

from dataclasses import dataclass

from fedcondense.config.study import Study
from fedcondense.data.dataset import LabeledImages
from fedcondense.exchange.contribution import SyntheticArrays


@dataclass(frozen=True)
class Subject:
    """One payload, as a receiver would decode it, at the site that made it.

    Attributes:
        arrays: the set, decoded from the very bytes that would leave.
        study: by which it was condensed.
        train: all images that the method saw.
        held_out: images of other groups of the same site, which it never saw.
    """

    arrays: SyntheticArrays
    study: Study
    train: LabeledImages
    held_out: LabeledImages
