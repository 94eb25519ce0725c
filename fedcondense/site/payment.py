"""Whether a site can pay for what a study asks: told before an image is read, and charged nothing.

The ledger itself decides when it is charged; it decides by the same rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fedcondense.config.privacy import FormalPrivacy
from fedcondense.config.site import SiteConfig
from fedcondense.config.study import Study
from fedcondense.privacy.budget import Quote, check_request
from fedcondense.privacy.ledger import PrivacyLedger
from fedcondense.site.doctor import Finding, Verdict

FIRST_ROUND = 1


def demand_payable(site: SiteConfig, study: Study, round: int) -> None:
    """Refuse a round that the site could not pay for; one whose set is kept costs nothing.

    No torch is loaded but for a study with differential privacy.

    Raises:
        BudgetExhausted: the budget does not allow it.
        SettingsError: [ledger] or [declared] is missing or does not fit the study.
        LedgerError: the ledger was lost, altered or set back.
    """
    ledger = _ledger(site)
    if _is_kept(site, study, round):
        return
    check_request(study.privacy, site.declared, site.ledger)
    if isinstance(study.privacy, FormalPrivacy):
        _accepted(ledger, site, study, rounds=1)


def payment(site: SiteConfig, study: Study) -> Iterator[Finding]:
    """The line of `check`: what the study would cost, or why it is refused.

    Raises:
        FedcondenseError: as `demand_payable`.
    """
    ledger = _ledger(site)
    kept = sum(_is_kept(site, study, number) for number in range(1, study.rounds + 1))
    if kept == study.rounds:
        yield Finding("budget", Verdict.OK, "all rounds of this study are paid for")
        return
    check_request(study.privacy, site.declared, site.ledger)
    if not isinstance(study.privacy, FormalPrivacy):
        text = "none is asked for; afterwards what these patients gave is bounded by nothing"
        yield Finding("budget", Verdict.OK, text)
        return
    quote = _accepted(ledger, site, study, rounds=study.rounds - kept)
    assert site.ledger is not None, "check_request refuses a site without one"
    text = (
        f"epsilon {quote.after.epsilon:.4g} of {site.ledger.epsilon:g} would be spent after this "
        f"study (delta {quote.after.delta:g}, unit {quote.unit.value})"
    )
    yield Finding("budget", Verdict.OK, text)


def _ledger(site: SiteConfig) -> PrivacyLedger:
    return PrivacyLedger.open(site.ledger_folder, site.population, site.ledger)


def _accepted(ledger: PrivacyLedger, site: SiteConfig, study: Study, *, rounds: int) -> Quote:
    from fedcondense.site.plan import access_of, planned_mechanisms  # torch takes seconds

    planned = planned_mechanisms(site, study) * rounds
    quote = ledger.view(planned, access_of(study, FIRST_ROUND)).planned
    assert quote is not None, "there is a mechanism to quote"
    if quote.refusal is not None:
        raise quote.refusal
    return quote


def _is_kept(site: SiteConfig, study: Study, round: int) -> bool:
    """As `RoundState.finished`, which loads torch."""
    folder: Path = site.state / "runs" / study.digest / f"round-{round:03d}"
    return (folder / "figures.json").exists()
