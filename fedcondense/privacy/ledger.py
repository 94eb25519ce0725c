"""The privacy ledger: every access to a population's patients, paid for before it happens.

One ledger for each population, whatever the study: what all its rows come to is what its patients
have been exposed to. A row is on disk before the access that it pays for begins, and none is ever
taken back: a run that crashed has spent what it was charged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedcondense.config.privacy import Budget, Unit
from fedcondense.errors import LedgerError
from fedcondense.privacy.accounting import Mechanism, Spent, compose
from fedcondense.privacy.budget import (
    BudgetView,
    Compose,
    Quote,
    budget_view,
    counted,
    quote,
    weaker_unit,
)
from fedcondense.privacy.chain import Chain, ChainFile, Entry, Row, State
from fedcondense.privacy.receipt import Paid

USUAL_DELTA = 1e-5


@dataclass(frozen=True)
class Access:
    """For what patients are read: the study by its digest, the round, and how.

    `delta` is the study's. `images_per_patient` is the most that one patient gives, where the
    mechanism bounds it; `clip` bounds a unit's share. Without noise `unit` says nothing.
    """

    study: str
    round: int
    mode: str
    unit: Unit = Unit.IMAGE
    delta: float = USUAL_DELTA
    images_per_patient: int | None = None
    clip: float | None = None


class PrivacyLedger:
    """The rows of one population and the site's budget for it."""

    def __init__(self, file: ChainFile, budget: Budget | None, compose: Compose) -> None:
        self._file = file
        self._budget = budget
        self._compose = compose

    @classmethod
    def open(
        cls,
        folder: Path,
        population: str,
        budget: Budget | None,
        *,
        compose: Compose = compose,
    ) -> PrivacyLedger:
        """The ledger of `population` in the site's ledger folder; an empty one the first time.

        Raises:
            LedgerError: it was lost, altered or set back.
        """
        ledger = cls(ChainFile(folder, population), budget, compose)
        ledger.verify()
        return ledger

    def charge(
        self, planned: Sequence[Mechanism], access: Access, *, before: Sequence[Row] = ()
    ) -> Paid:
        """Pay for all `planned` mechanisms at once, before a single image is opened.

        When this returns, their rows will outlive a crash. Without a budget only what is not
        bounded can be paid for, and everything after it is not bounded either.

        Args:
            planned: what is about to happen.
            access: for what.
            before: rows of earlier rounds whose sets this access begins with; they are paid for
                already, and count in what the receipt says was spent.

        Raises:
            BudgetExhausted: all rows with these would cost more than the budget, or are not
                bounded by anything; nothing was written.
            SettingsError: the site has no budget for differential privacy.
            LedgerError: the ledger was lost, altered or set back, or does not hold `before`.
        """
        entries = _entries(planned, access)
        with self._file.lock():
            chain = self._file.load()
            _demand(chain, before)
            price = self._quote(chain, entries, access.delta, before)
            if price.refusal is not None:
                raise price.refusal
            longer = self._file.append(chain, entries)
        return Paid(
            rows=longer.rows[len(chain.rows) :],
            spent=price.alone,
            cumulative=price.after,
            cumulative_unit=price.unit,
            head=longer.head,
            mode=access.mode,
            unit=entries[0].unit,
            before=tuple(before),
            population=chain.population,
        )

    def finish(self, paid: Paid, *, data_digest: str = "") -> None:
        """Write down that what was paid for has been used to the end; twice is once.

        `data_digest` is that of the images that were read, known only now: rows that pay are
        written before an image is opened.

        Raises:
            LedgerError: the receipt is not from this ledger as it stands now.
        """
        with self._file.lock():
            chain = self._file.load()
            _demand(chain, paid.rows)
            seqs = tuple(row.seq for row in paid.rows)
            if not any(row.settles == seqs for row in chain.rows):
                first = paid.rows[0]
                done = Entry(
                    state=State.DONE,
                    mechanism=first.mechanism,
                    mode=first.mode,
                    study=first.study,
                    round=first.round,
                    settles=seqs,
                    data_digest=data_digest,
                )
                self._file.append(chain, [done])

    @contextmanager
    def rehearsal(self, what: str, *, study: str = "", round: int = 0) -> Iterator[None]:
        """Patients are read for something that never leaves the site: written down, not charged.

        Raises:
            LedgerError: the ledger was lost, altered or set back.
        """
        entry = Entry(state=State.REHEARSAL, mechanism=what, study=study, round=round)
        with self._file.lock():
            self._file.append(self._file.load(), [entry])
        yield

    def rows(self) -> tuple[Row, ...]:
        """Every row, oldest first."""
        return self._load().rows

    def holds(self, *heads: str) -> bool:
        """Whether the ledger ever ended in each of `heads`.

        False for the head of an issued release record, or of a receipt, means that the ledger was
        lost or set back, both of its files together.
        """
        chain = self._load()
        return all(chain.holds(head) for head in heads)

    def verify(self) -> str:
        """Digest of the last row, after the whole chain was followed.

        Raises:
            LedgerError: the ledger was lost, altered or set back.
        """
        return self._load().head

    def spent(self, delta: float | None = None) -> Spent:
        """What all rows come to, for the budget's unit; without one, for the weaker of the rows'.

        `delta` is the budget's if not given.
        """
        rows = self.rows()
        unit = self._budget.unit if self._budget else weaker_unit(rows)
        return self._compose(counted(rows, unit), delta or self._delta)

    @property
    def remaining(self) -> float | None:
        """Budget less what is spent; none without a budget."""
        return self.view().left

    def view(self, planned: Sequence[Mechanism] = (), access: Access | None = None) -> BudgetView:
        """What was spent, on what, what is left and what `planned`, if any, would cost.

        Args:
            planned: of all rounds that are still to come.
            access: for what they would be charged.
        """
        chain = self._load()
        price = None
        if planned and access is not None:
            price = self._quote(chain, _entries(planned, access), access.delta)
        return budget_view(
            chain,
            self._budget,
            delta=self._delta,
            compose=self._compose,
            planned=price,
        )

    @property
    def _delta(self) -> float:
        return self._budget.delta if self._budget else USUAL_DELTA

    def _load(self) -> Chain:
        with self._file.lock():
            return self._file.load()

    def _quote(
        self,
        chain: Chain,
        entries: Sequence[Entry],
        delta: float,
        before: Sequence[Row] = (),
    ) -> Quote:
        return quote(
            chain.rows,
            entries,
            budget=self._budget,
            delta=delta,
            compose=self._compose,
            before=before,
        )


def _demand(chain: Chain, rows: Sequence[Row]) -> None:
    if not {row.digest for row in rows}.issubset(chain.heads):
        raise LedgerError(
            "the ledger does not hold the rows of a receipt: it was set back",
            hint="restore both files of the ledger as they were last",
        )


def _entries(planned: Sequence[Mechanism], access: Access) -> list[Entry]:
    if not planned:
        raise ValueError("an access without a mechanism cannot be paid for")
    return [
        Entry(
            state=State.UNBOUNDED if of.sigma is None else State.CHARGED,
            mechanism=of.name,
            sigma=of.sigma,
            q=of.q,
            steps=of.steps,
            unit=None if of.sigma is None else access.unit,
            k_max=access.images_per_patient,
            clip=access.clip,
            mode=access.mode,
            study=access.study,
            round=access.round,
        )
        for of in planned
    ]
