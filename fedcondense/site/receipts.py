"""The receipts that lie beside a site's sets, held against its ledger.

The two files of a ledger vouch for each other, but not for both: lost together they look like a
ledger that nobody has charged yet, and an old copy of both like one that was charged less. What
was condensed from the same patients knows better.
"""

from __future__ import annotations

from collections.abc import Iterator

from fedcondense.config.site import SiteConfig
from fedcondense.errors import LedgerError
from fedcondense.files.storage import read_json
from fedcondense.privacy.ledger import PrivacyLedger
from fedcondense.privacy.receipt import Paid
from fedcondense.site.state import RECEIPT, Outlay


def trusted_ledger(site: SiteConfig) -> PrivacyLedger:
    """The site's ledger, which holds all that is known to have been paid for.

    Raises:
        LedgerError: it was lost, altered or set back, or a receipt is damaged.
    """
    ledger = PrivacyLedger.open(site.ledger_folder, site.population, site.ledger)
    if not ledger.holds(*(paid.head for paid in _receipts(site))):
        raise LedgerError(
            f"the ledger of '{site.population}' does not hold what an earlier set was paid with: "
            "both of its files were lost or set back",
            hint="restore both files of the ledger as they were last; without them these "
            "patients' data cannot be charged any more",
        )
    return ledger


def _receipts(site: SiteConfig) -> Iterator[Paid]:
    """What was paid for this population, of sets that were put aside too."""
    rounds = site.state / "runs"
    for pattern in (f"*/round-*/{RECEIPT}", f"*/round-*/attempt-*/{RECEIPT}"):
        for path in sorted(rounds.glob(pattern)):
            paid = Outlay.from_json(read_json(path)).paid
            if paid.population in ("", site.population):
                yield paid
