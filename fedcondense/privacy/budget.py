"""What a site's budget allows: which rows count for whom, what an access would cost, what is left.

Pure: rows and numbers in, numbers out. The ledger refuses by the same `quote` that
`fedcondense-site budget` prints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedcondense.config.privacy import Budget, Declared, FormalPrivacy, Privacy, Unit
from fedcondense.errors import BudgetExhausted, FedcondenseError, SettingsError
from fedcondense.privacy.accounting import Mechanism, Spent
from fedcondense.privacy.chain import Chain, Entry, Row, State

Compose = Callable[[Sequence[Mechanism], float], Spent]

# Each patient's share is a mean of vectors within a ball of radius C: (z_k - mean of the others)/k
# is how far it moves when its k-th image goes, at most C from two images on.
_MEANS = frozenset({"class-embeddings", "class-counts"})
_WITH_DP = "set [privacy] mode in the study, or leave out [ledger] for good"


@dataclass(frozen=True)
class Quote:
    """What an access would cost the patients of a ledger, and why it is refused if it is.

    `alone` is the access with what it rests on, at the study's delta; `after` is all of the ledger
    with it, for `unit`, at the budget's delta.
    """

    alone: Spent
    after: Spent
    unit: Unit
    refusal: FedcondenseError | None


@dataclass(frozen=True)
class Spending:
    """A row that was paid for, and whether its access was finished."""

    row: Row
    finished: bool


@dataclass(frozen=True)
class BudgetView:
    """All that `fedcondense-site budget` prints.

    `unit` is whom `spent` bounds. `left` is the plain difference to the budget, none without one:
    what another access costs is not added to `spent` but composed with it, see `planned`.
    """

    population: str
    budget: Budget | None
    unit: Unit
    spent: Spent
    left: float | None
    spendings: tuple[Spending, ...]
    rehearsals: int
    planned: Quote | None


def counted(rows: Sequence[Entry], unit: Unit) -> list[Mechanism]:
    """What the rows that cost something are for a guarantee of `unit`.

    A row for images bounds nothing for a patient, who may have many. A row for patients hides an
    image too, but as the loss of one of its patient's images, who stays: for means of bounded
    vectors that moves no more than the patient's going would; for anything else up to twice as
    much, and no sampling rate is known to help.
    """
    return [_counted(row, unit) for row in rows if row.state in (State.CHARGED, State.UNBOUNDED)]


def _counted(row: Entry, unit: Unit) -> Mechanism:
    if row.sigma is None or (row.unit is Unit.IMAGE and unit is Unit.PATIENT):
        return Mechanism(row.mechanism, None)
    if row.unit is unit or row.mechanism in _MEANS:
        return Mechanism(row.mechanism, row.sigma, row.q, row.steps)
    return Mechanism(row.mechanism, row.sigma / 2, 1.0, row.steps)


def weaker_unit(rows: Sequence[Entry]) -> Unit:
    """For whom all rows together can be stated: images as soon as one row is for images."""
    return Unit.IMAGE if any(row.unit is Unit.IMAGE for row in rows) else Unit.PATIENT


def check_request(request: Privacy, declared: Declared | None, budget: Budget | None) -> None:
    """What can be told of a study's request before any noise is planned.

    Raises:
        SettingsError: the site has no [ledger] or does not declare how many units it has, or a
            delta is not below one in that number.
        BudgetExhausted: the site's budget does not allow this kind of study at all.
    """
    refusal = _refusal_of_kind(
        bounded=isinstance(request, FormalPrivacy),
        unit=request.unit if isinstance(request, FormalPrivacy) else None,
        budget=budget,
    )
    if refusal is not None:
        raise refusal
    if isinstance(request, FormalPrivacy) and budget is not None:
        for unit, delta in ((request.unit, request.delta), (budget.unit, budget.delta)):
            _check_delta(unit, delta, declared)


def _check_delta(unit: Unit, delta: float, declared: Declared | None) -> None:
    units = None if declared is None else declared.units(unit)
    if units is None:
        raise SettingsError(
            f"site.toml: [declared] {unit.value}s is missing",
            hint="noise is planned from a number that the site makes public, without reading data",
        )
    if delta * units >= 1:
        raise SettingsError(
            f"delta {delta:g} is not below one in {units} {unit.value}s",
            hint="a delta of one in N would allow to publish a whole record; ask for less",
        )


def quote(
    rows: Sequence[Entry],
    entries: Sequence[Entry],
    *,
    budget: Budget | None,
    delta: float,
    compose: Compose,
    before: Sequence[Entry] = (),
) -> Quote:
    """What `entries` would cost on top of `rows`, composed as one history.

    Args:
        rows: of the ledger, in any state.
        entries: that would be charged.
        budget: the site's.
        delta: the study's.
        compose: the accountant.
        before: those of `rows` that the release will depend on too; part of `alone`.
    """
    unit = budget.unit if budget else weaker_unit([*rows, *entries])
    at = budget.delta if budget else delta
    own = entries[0].unit or unit
    alone = compose(counted([*before, *entries], own), delta)
    after = compose(counted([*rows, *entries], unit), at)
    refusal = _refusal_of_kind(
        bounded=all(entry.sigma is not None for entry in entries), unit=own, budget=budget
    )
    if refusal is None and budget is not None and after.epsilon > budget.epsilon:
        refusal = _too_much(budget, compose(counted(rows, unit), at), after)
    return Quote(alone, after, unit, refusal)


def _refusal_of_kind(
    *, bounded: bool, unit: Unit | None, budget: Budget | None
) -> FedcondenseError | None:
    """A budget pays for bounded accesses of its unit only; without one there is nothing to pay."""
    if budget is None:
        return _no_budget() if bounded else None
    if not bounded:
        return BudgetExhausted(
            "a study without differential privacy is not bounded, "
            f"the budget in [ledger] is epsilon {budget.epsilon:g}",
            hint=_WITH_DP,
        )
    if budget.unit is Unit.PATIENT and unit is Unit.IMAGE:
        return BudgetExhausted(
            "the study hides single images, the budget in [ledger] is for patients",
            hint="a patient may have many images; ask for a study of unit patient",
        )
    return None


def _no_budget() -> SettingsError:
    return SettingsError(
        "site.toml: [ledger] is missing, the study needs a budget to be charged to",
        hint="set [ledger] epsilon, delta and unit: the most that all studies together may cost",
    )


def _too_much(budget: Budget, before: Spent, after: Spent) -> BudgetExhausted:
    if not after.bounded:
        return BudgetExhausted(
            f"what was spent on these patients is not bounded for unit {budget.unit.value}, "
            f"the budget in [ledger] is epsilon {budget.epsilon:g}",
            hint="an earlier study ran without differential privacy or for a weaker unit; that "
            "cannot be undone",
        )
    return BudgetExhausted(
        f"epsilon {before.epsilon:.4g} is spent and the study would make it {after.epsilon:.4g}, "
        f"the budget in [ledger] is {budget.epsilon:g} (delta {budget.delta:g}, "
        f"unit {budget.unit.value}, accountant {after.accountant})",
        hint="a smaller epsilon of the study costs less; only the site can raise its budget",
    )


def budget_view(
    chain: Chain,
    budget: Budget | None,
    *,
    delta: float,
    compose: Compose,
    planned: Quote | None = None,
) -> BudgetView:
    """What was spent, on what, and what is left; `delta` counts where there is no budget."""
    rows = chain.rows
    unit = budget.unit if budget else weaker_unit(rows)
    spent = compose(counted(rows, unit), budget.delta if budget else delta)
    settled = {seq for row in rows for seq in row.settles}
    paid = [row for row in rows if row.state in (State.CHARGED, State.UNBOUNDED)]
    return BudgetView(
        population=chain.population,
        budget=budget,
        unit=unit,
        spent=spent,
        left=_left(budget, spent),
        spendings=tuple(Spending(row, row.seq in settled) for row in paid),
        rehearsals=sum(row.state is State.REHEARSAL for row in rows),
        planned=planned,
    )


def _left(budget: Budget | None, spent: Spent) -> float | None:
    if budget is None:
        return None
    return 0.0 if math.isinf(spent.epsilon) else max(0.0, budget.epsilon - spent.epsilon)
