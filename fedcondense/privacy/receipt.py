"""What the ledger answers to a charge: the receipt that a site keeps beside the finished set."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from fedcondense.config.privacy import Unit
from fedcondense.errors import LedgerError
from fedcondense.files.storage import canonical_json
from fedcondense.privacy.accounting import Spent
from fedcondense.privacy.chain import Row

_ROWS = TypeAdapter(tuple[Row, ...])


@dataclass(frozen=True)
class Paid:
    """The receipt for one access to patient data.

    `before` are rows that were paid for in earlier rounds and whose sets this one begins with: what
    comes out depends on them too. `spent` is what both cost together, at the study's delta, and
    nothing else of the ledger; `cumulative` what the ledger came to
    with them, for `cumulative_unit` and at the budget's delta. `head` is the digest of the last
    row. `unit` is none in a mode that hides nobody. `population` is whose ledger was charged.
    """

    rows: tuple[Row, ...]
    spent: Spent
    cumulative: Spent
    cumulative_unit: Unit
    head: str
    mode: str
    unit: Unit | None
    before: tuple[Row, ...] = ()
    population: str = ""

    @property
    def rests_on(self) -> tuple[Row, ...]:
        """All rows that a set paid with this receipt depends on, oldest first."""
        return (*self.before, *self.rows)

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it, which knows no infinity: an epsilon of null is not bounded."""
        return {
            "before": [row.model_dump(mode="json") for row in self.before],
            "cumulative": _spent_to_json(self.cumulative),
            "cumulative_unit": self.cumulative_unit.value,
            "head": self.head,
            "mode": self.mode,
            "population": self.population,
            "rows": [row.model_dump(mode="json") for row in self.rows],
            "spent": _spent_to_json(self.spent),
            "unit": self.unit and self.unit.value,
        }

    @classmethod
    def from_json(cls, value: Any) -> Paid:
        """What `to_json` gave.

        Raises:
            LedgerError: `value` is something else.
        """
        try:
            return cls(
                rows=_ROWS.validate_json(canonical_json(value["rows"])),
                spent=_spent_from_json(value["spent"]),
                cumulative=_spent_from_json(value["cumulative"]),
                cumulative_unit=Unit(value["cumulative_unit"]),
                head=str(value["head"]),
                mode=str(value["mode"]),
                unit=None if value["unit"] is None else Unit(value["unit"]),
                before=_ROWS.validate_json(canonical_json(value.get("before", []))),
                population=str(value.get("population", "")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise LedgerError(
                "the receipt kept beside a finished set is damaged",
                hint="restore it, or condense again, which is charged again",
            ) from error


def _spent_to_json(spent: Spent) -> dict[str, Any]:
    return {
        "accountant": spent.accountant,
        "delta": spent.delta,
        "epsilon": spent.epsilon if spent.bounded else None,
    }


def _spent_from_json(value: Any) -> Spent:
    epsilon = math.inf if value["epsilon"] is None else float(value["epsilon"])
    return Spent(epsilon, float(value["delta"]), value["accountant"])
