"""What a release was paid with, as the gate judges it and as its record states it."""

from __future__ import annotations

from fedcondense.config.privacy import Declared, DpEmbed, DpSgd
from fedcondense.config.study import Study
from fedcondense.exchange.guarantee import (
    ACCOUNTANTS,
    FORMAL,
    MECHANISMS,
    MOST_ROWS,
    Account,
    Attacker,
    ChargedRow,
    Cumulative,
    Guarantee,
    fits_declared,
)
from fedcondense.exchange.terms import LARGEST_BOUND, lower_text, upper_text
from fedcondense.privacy.accounting import Mechanism
from fedcondense.privacy.attacker import Allowed, allowed, allowed_by
from fedcondense.privacy.chain import Row, State
from fedcondense.privacy.receipt import Paid


def account_of(
    paid: Paid | None, study: Study, *, round: int, accesses: int, declared: Declared | None
) -> Account | None:
    """What the record states of the ledger; None if the ledger does not bear the release out.

    Under differential privacy each access to anything derived from patients has exactly one
    charged row, for this study, of a mechanism of the study's mode: of this round, and of the
    earlier ones whose sets this one begins with. Together they stay within what the study asks
    for. Without it there is one row, and it bounds nothing.
    """
    if paid is None or not _is_for(paid, study, round):
        return None
    privacy = study.privacy
    if not isinstance(privacy, FORMAL):
        unbounded = [row.state for row in paid.rows] == [State.UNBOUNDED]
        return Account(guarantee=None, ledger_head=paid.head) if unbounded else None
    if len(paid.rests_on) != accesses or not _bears_out(paid, privacy):
        return None
    guarantee = _guarantee_of(paid, privacy)
    if not fits_declared(guarantee, declared):
        return None
    return Account(guarantee, _cumulative_of(paid), paid.head)


def _is_for(paid: Paid, study: Study, round: int) -> bool:
    mode = study.privacy.mode
    return (
        paid.mode == mode
        and all((row.study, row.mode) == (study.digest, mode) for row in paid.rests_on)
        and all(row.round == round for row in paid.rows)
        and all(row.round < round for row in paid.before)
    )


def _bears_out(paid: Paid, privacy: DpEmbed | DpSgd) -> bool:
    spent = paid.spent
    return (
        len(paid.rows) >= 1
        and len(paid.rests_on) <= MOST_ROWS
        and all(_is_charged(row, privacy) for row in paid.rests_on)
        and paid.unit == privacy.unit
        and spent.epsilon <= privacy.epsilon
        and spent.delta <= privacy.delta
        and spent.accountant in ACCOUNTANTS
    )


def _is_charged(row: Row, privacy: DpEmbed | DpSgd) -> bool:
    return (
        row.state is State.CHARGED
        and row.unit == privacy.unit
        and row.mechanism in MECHANISMS[privacy.mode]
    )


def _guarantee_of(paid: Paid, privacy: DpEmbed | DpSgd) -> Guarantee:
    """Every number rounded towards the weaker claim."""
    rows = [_mechanism(row) for row in paid.rests_on]
    return Guarantee(
        unit=privacy.unit,
        epsilon=upper_text(paid.spent.epsilon),
        delta=upper_text(paid.spent.delta),
        accountant=paid.spent.accountant,
        accountant_version=f"opacus {paid.rows[-1].versions['opacus']}",
        rows=tuple(
            ChargedRow(of.name, q=upper_text(of.q), sigma=lower_text(of.sigma), steps=of.steps)
            for of in rows
            if of.sigma is not None
        ),
        attacker=_attacker(allowed(rows), allowed_by(paid.spent)),
    )


def _mechanism(row: Row) -> Mechanism:
    return Mechanism(row.mechanism, row.sigma, row.q, row.steps)


def _attacker(*bounds: Allowed) -> Attacker:
    """The least of bounds that all hold."""
    return Attacker(
        auc=upper_text(min(of.auc for of in bounds)),
        tpr_at_fpr_one_percent=upper_text(min(of.tpr_at_1_percent for of in bounds)),
        tpr_at_fpr_tenth_percent=upper_text(min(of.tpr_at_0_1_percent for of in bounds)),
    )


def _cumulative_of(paid: Paid) -> Cumulative | None:
    """A sum that no decimal string holds is as good as none."""
    sum_ = paid.cumulative
    if not sum_.epsilon <= LARGEST_BOUND:
        return None
    unit = paid.cumulative_unit
    return Cumulative(upper_text(sum_.epsilon), upper_text(sum_.delta), unit)
