"""What `fedcondense-site budget` prints: rows paid for, what they come to, what a study costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Column, Table

if TYPE_CHECKING:
    from fedcondense.config.study import Study
    from fedcondense.privacy.accounting import Mechanism, Spent
    from fedcondense.privacy.budget import BudgetView, Spending


def show_spent(view: BudgetView) -> None:
    """Print the ledger of a population: what was paid for, and what is left."""
    Console().print(_paid(view))
    for line in _sums(view):
        _say(line)


def show_plan(
    view: BudgetView, study: Study, planned: Sequence[Mechanism], *, is_paid: bool
) -> None:
    """Print what the planned study would do to the patients of a population, and cost them.

    `planned` are the rows of one round. `is_paid` says that the study's set is kept already: to
    send it costs nothing more.
    """
    for line in (*_plan(view, study, is_paid=is_paid), *planned_lines(study, planned)):
        _say(line)
    if view.planned is not None and view.planned.refusal is not None:
        _say(f"it would be refused: {view.planned.refusal.message}")


def planned_lines(study: Study, planned: Sequence[Mechanism]) -> list[str]:
    """A line for each row that a round will charge, before anything runs."""
    unit = getattr(study.privacy, "unit", None)
    return [_planned(of, f", unit {unit}" if unit else "") for of in planned]


def _planned(of: Mechanism, unit: str) -> str:
    if of.sigma is None:
        return f"a round pays for: {of.name}, without noise: not bounded"
    steps = "1 step" if of.steps == 1 else f"{of.steps} steps"
    return f"a round pays for: {of.name}, sigma {of.sigma:.4g}, rate {of.q:.4g}, {steps}{unit}"


def _paid(view: BudgetView) -> Table:
    names = ("paid", "for", "sigma", "rate x steps", "unit", "study", "done")
    table = Table(*(Column(name, no_wrap=True) for name in names), box=None)
    for spending in view.spendings:
        table.add_row(*_cells(spending))
    return table


def _cells(spending: Spending) -> tuple[str, ...]:
    row = spending.row
    return (
        row.time[:10],
        row.mechanism,
        "none" if row.sigma is None else f"{row.sigma:g}",
        f"{row.q:g} x {row.steps}",
        row.unit.value if row.unit else "-",
        (row.study or "")[:8],
        "yes" if spending.finished else "no",
    )


def _sums(view: BudgetView) -> list[str]:
    budget = view.budget
    limit = (
        "none: only studies without differential privacy are possible"
        if budget is None
        else f"epsilon {budget.epsilon:g}, delta {budget.delta:g}, unit {budget.unit}"
    )
    lines = [
        f"population {view.population}",
        f"budget: {limit}",
        f"spent: {_epsilon(view.spent)}{_unit(view)}",
    ]
    if view.left is not None:
        lines.append(f"left: epsilon {view.left:.4g}")
    lines.append(f"audits of the site's own sets, which cost nothing: {view.rehearsals}")
    return lines


def _unit(view: BudgetView) -> str:
    """An epsilon stands with its unit; before the first row there is nothing to bound."""
    return f", unit {view.unit}" if view.spendings and view.spent.bounded else ""


def _plan(view: BudgetView, study: Study, *, is_paid: bool) -> list[str]:
    lines = []
    if is_paid:
        lines.append(f"study {study.name}: its set is paid for; `join` sends it and pays no more")
    if view.planned is None:
        return lines
    what = "another set of it" if is_paid else f"study {study.name}, mode {study.privacy.mode}"
    after = view.planned.after
    unit = f", unit {view.planned.unit}" if after.bounded else ""
    by = f", accountant {after.accountant}" if after.bounded else ""
    lines.append(f"{what}: afterwards {_epsilon(after)}{unit}{by}")
    return lines


def _epsilon(spent: Spent) -> str:
    if not spent.bounded:
        return "not bounded: patients were read without noise"
    return f"epsilon {spent.epsilon:.4g} at delta {spent.delta:g}"


def _say(text: str) -> None:
    Console().print(text, soft_wrap=True, highlight=False, markup=False)
