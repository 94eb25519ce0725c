"""What a report says of the gate: verdicts and words; figures of audits stay at the site."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedcondense.files.figures import Figures, Sparse

Said = Literal["passed", "refused", "not-run"]


class Gate(Figures):
    """What the gate said of one set, as the site's release record has it.

    `problems` are why it is refused; under `simulation`, why it would be as a `release`. `audits`
    are verdicts by name: provenance, memorisation, membership. `statement` is the sentence that
    goes with the set. `page` is the site's own page, which shows the figures and the pictures: a
    path below the folder of the report, which only a simulation can know.
    """

    purpose: Literal["release", "simulation"]
    problems: tuple[str, ...] = ()
    audits: dict[str, Said] = Field(default_factory=dict)
    statement: str = ""
    page: str = ""


class FailedSite(Sparse):
    """A site that did not contribute, the code of its error, and the gate's answer if it came."""

    name: str
    repetition: int = Field(ge=0)
    code: str
    gate: Gate | None = None


class SiteGate(Figures):
    """The gate's answer to one site of a sweep's cell."""

    name: str
    seed: int
    gate: Gate
