"""The formal guarantee as it stands in a release record: what it comes from, what it allows.

Numbers are decimal strings, rounded to six digits towards the weaker claim. Each follows from the
study and from numbers that the site declared public, none from a patient's image.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any

from fedcondense.config.privacy import Declared, DpEmbed, DpSgd, Privacy, Unit
from fedcondense.exchange.record_words import ASSUMPTIONS, NOISE_SOURCE, NOT_BOUNDED, RELATION
from fedcondense.exchange.rejection import Reason, demand, reject
from fedcondense.exchange.strict_json import has_shape
from fedcondense.exchange.terms import LARGEST_BOUND, decimal_number, upper_text

FORMAL = (DpEmbed, DpSgd)  # what a study asks for where a release has a guarantee
MECHANISMS: Mapping[str, frozenset[str]] = {
    "dp-embed": frozenset({"class-embeddings", "class-counts"}),
    "dp-sgd": frozenset({"experts", "class-counts"}),
}
ACCOUNTANTS = ("prv", "rdp")
MOST_ROWS = 64
MOST_OF_ANYTHING = 10**9  # accesses, steps, declared images: no site has more
_DIGEST = re.compile(r"[0-9a-f]{64}")
SOFTWARE = re.compile(r"[a-z]{1,20} [0-9][0-9a-z.+]{0,19}")
_ROW: Mapping[str, type] = {"mechanism": str, "q": str, "sigma": str, "steps": int}
_OPEN: Mapping[str, type] = {  # what does not follow from the study
    "accountant": str,
    "accountant_version": str,
    "attacker": dict,
    "delta": str,
    "epsilon": str,
    "rows": list,
}


@dataclass(frozen=True)
class ChargedRow:
    """One paid access: noise of standard deviation `sigma` over sensitivity, at rate `q`."""

    mechanism: str
    q: str
    sigma: str
    steps: int


@dataclass(frozen=True)
class Attacker:
    """The most that a guarantee allows ANY attacker: true positive rates, and area under the curve.

    The rates are those at a false positive rate of 0.1 % and of 1 %; all are shares of 1.
    """

    auc: str
    tpr_at_fpr_one_percent: str
    tpr_at_fpr_tenth_percent: str


@dataclass(frozen=True)
class Guarantee:
    """(`epsilon`, `delta`)-differential privacy of one release, by an accountant, from its rows."""

    unit: Unit
    epsilon: str
    delta: str
    accountant: str
    accountant_version: str
    rows: tuple[ChargedRow, ...]
    attacker: Attacker


@dataclass(frozen=True)
class Cumulative:
    """What all accesses ever paid for these patients come to, for the weaker unit among them."""

    epsilon: str
    delta: str
    unit: Unit


@dataclass(frozen=True)
class Account:
    """What the site's ledger says after a release was paid for.

    `guarantee` is None where there is none, `cumulative` where nothing is bounded, since one access
    was without noise. `ledger_head` is the digest of the ledger's last row, None where nothing was
    paid.
    """

    guarantee: Guarantee | None
    cumulative: Cumulative | None = None
    ledger_head: str | None = None


def privacy_block(account: Account, privacy: Privacy) -> dict[str, Any]:
    """The part `privacy` of a record; without a guarantee it names the mode and the ledger only."""
    total = account.cumulative
    block: dict[str, Any] = {
        "cumulative_delta": total and total.delta,
        "cumulative_epsilon": total.epsilon if total else NOT_BOUNDED,
        "cumulative_unit": total and total.unit.value,
        "ledger_head": account.ledger_head,
        "mode": privacy.mode,
    }
    if account.guarantee is None:
        return block
    return {
        **block,
        **asdict(account.guarantee),
        "assumptions": list(ASSUMPTIONS[privacy.mode]),
        "images_per_patient": _images_per_patient(privacy),
        "noise": NOISE_SOURCE,
        "relation": RELATION,
        "rows": [asdict(row) for row in account.guarantee.rows],
        "unit": account.guarantee.unit.value,
    }


def read_account(block: object, privacy: Privacy, *, refused: bool) -> Account:
    """The open fields of the part `privacy`, each by form and range.

    Whoever calls writes the part again and compares: that refuses unknown keys, another mode,
    unit or assumption.

    Args:
        block: the part as received.
        privacy: what the study asks for.
        refused: the gate found that the ledger does not bear the release out, so that there is
            no guarantee.

    Raises:
        ContributionRejected: `record`.
    """
    demand(isinstance(block, dict), Reason.RECORD)
    values: dict[str, Any] = dict(block)  # type: ignore[call-overload]  # looked at just above
    head = values.get("ledger_head")
    demand(_is_digest(head) or (refused and head is None), Reason.RECORD)
    if refused or not isinstance(privacy, FORMAL):
        return Account(guarantee=None, ledger_head=head)
    return Account(_read_guarantee(values, privacy), _read_cumulative(values), head)


def formal_sentence(guarantee: Guarantee) -> str:
    """The guarantee and what it allows any attacker, rounded up to a tenth of a percent."""
    rows, attacker = len(guarantee.rows), guarantee.attacker
    return (
        f"({guarantee.epsilon}, {guarantee.delta})-DP, unit {guarantee.unit.value}, {RELATION}, "
        f"accountant {guarantee.accountant} ({guarantee.accountant_version}), "
        f"{rows} ledger {'row' if rows == 1 else 'rows'}, public assumptions as listed. "
        "Any attacker, whatever else is known, finds at most "
        f"{percent_up(attacker.tpr_at_fpr_tenth_percent)} % of members at a false positive rate of "
        f"0.1 % and {percent_up(attacker.tpr_at_fpr_one_percent)} % at 1 %, "
        f"with an AUC of at most {rounded_up(attacker.auc, '0.001')}."
    )


def percent_up(share: str) -> str:
    """A share in [0, 1] as a percentage with one decimal, rounded up."""
    return rounded_up(format(100 * Decimal(share), "f"), "0.1")


def rounded_up(number: str, step: str) -> str:
    """A decimal string rounded up to a multiple of `step`."""
    return str(Decimal(number).quantize(Decimal(step), ROUND_CEILING))


def fits_declared(guarantee: Guarantee, declared: Declared | None) -> bool:
    """Whether the numbers that the noise was planned from are there, and delta is below one in N.

    A delta of one in N would allow to publish a whole record.
    """
    units = None if declared is None else declared.units(guarantee.unit)
    return units is not None and decimal_number(guarantee.delta) * units < 1


def _read_guarantee(values: dict[str, Any], privacy: DpEmbed | DpSgd) -> Guarantee:
    given: dict[str, Any] = {key: values.get(key) for key in _OPEN}
    demand(has_shape(given, _OPEN), Reason.RECORD)
    _demand_up_to(given["epsilon"], decimal_number(upper_text(privacy.epsilon)))
    _demand_up_to(given["delta"], decimal_number(upper_text(privacy.delta)))
    demand(given["accountant"] in ACCOUNTANTS, Reason.RECORD)
    demand(SOFTWARE.fullmatch(given["accountant_version"]), Reason.RECORD)
    rows = given["rows"]
    demand(1 <= len(rows) <= MOST_ROWS, Reason.RECORD)
    return Guarantee(
        unit=privacy.unit,
        epsilon=given["epsilon"],
        delta=given["delta"],
        accountant=given["accountant"],
        accountant_version=given["accountant_version"],
        rows=tuple(_read_row(row, MECHANISMS[privacy.mode]) for row in rows),
        attacker=_read_attacker(given),
    )


def _read_cumulative(values: dict[str, Any]) -> Cumulative | None:
    epsilon, delta, unit = (values.get(f"cumulative_{of}") for of in ("epsilon", "delta", "unit"))
    if epsilon == NOT_BOUNDED:
        return None
    _demand_up_to(epsilon, LARGEST_BOUND)
    _demand_up_to(delta, 1.0)
    demand(unit in tuple(Unit), Reason.RECORD)
    return Cumulative(str(epsilon), str(delta), Unit(str(unit)))


def _read_row(row: object, mechanisms: frozenset[str]) -> ChargedRow:
    demand(has_shape(row, _ROW), Reason.RECORD)
    values = ChargedRow(**row)  # type: ignore[arg-type]  # has_shape has looked
    demand(values.mechanism in mechanisms, Reason.RECORD)
    _demand_up_to(values.sigma, LARGEST_BOUND)
    _demand_up_to(values.q, 1.0)
    demand(1 <= values.steps <= MOST_OF_ANYTHING, Reason.RECORD)
    return values


def _read_attacker(given: dict[str, Any]) -> Attacker:
    """No attacker does worse than guessing, and none better than the guarantee lets any.

    (epsilon, delta) alone allows a true positive rate of e^epsilon FPR + delta (Kairouz et al.
    2015, eq. 1); what the mechanism is known to allow is less.
    """
    shape = dict.fromkeys(Attacker.__annotations__, str)
    demand(has_shape(given["attacker"], shape), Reason.RECORD)
    attacker = Attacker(**given["attacker"])
    rates = {0.001: attacker.tpr_at_fpr_tenth_percent, 0.01: attacker.tpr_at_fpr_one_percent}
    for false_positive_rate, most in rates.items():
        _demand_up_to(most, 1.0)
        demand(decimal_number(most) >= false_positive_rate, Reason.RECORD)
        allowed = largest_rate(false_positive_rate, given["epsilon"], given["delta"])
        demand(decimal_number(most) <= decimal_number(upper_text(allowed)), Reason.RECORD)
    _demand_up_to(attacker.auc, 1.0)
    demand(decimal_number(attacker.auc) >= 0.5, Reason.RECORD)
    return attacker


def largest_rate(false_positive_rate: float, epsilon: str, delta: str) -> float:
    """The true positive rate that (epsilon, delta) alone allows at a false positive rate."""
    grown = math.exp(decimal_number(epsilon)) * false_positive_rate + decimal_number(delta)
    return min(1.0, grown)


def _images_per_patient(privacy: Privacy) -> int | None:
    """How many images of one patient are used at most, where the mechanism bounds them."""
    if isinstance(privacy, DpSgd) and privacy.unit is Unit.PATIENT:
        return privacy.images_per_patient
    return None


def _demand_up_to(text: object, most: float) -> None:
    """`text` is a decimal string of more than 0 and at most `most`."""
    demand(isinstance(text, str), Reason.RECORD)
    try:
        number = decimal_number(str(text))
    except ValueError:
        reject(Reason.RECORD)
    demand(0 < number <= most, Reason.RECORD)


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None
