"""The data officer's signature under what would leave, where the site demands it."""

from __future__ import annotations

from fedcondense.config.site import SiteConfig
from fedcondense.errors import ApprovalMissing, SettingsError
from fedcondense.exchange.approval import Approval, approve, is_approved
from fedcondense.exchange.keys import SigningKey, fingerprint_digits, signing_fingerprint
from fedcondense.site.state import RoundState


def approvals_for(site: SiteConfig, state: RoundState, payload_sha256: str) -> tuple[Approval, ...]:
    """What is sent beside the payload: nothing, or the officer's approval of exactly it.

    Raises:
        ApprovalMissing: the site demands one, and it is not there or for something else.
    """
    if not site.release.needs_approval:
        return ()
    kept = state.approval()
    if kept is None:
        raise _missing("the data officer has not approved what would leave")
    approval, officer = kept
    if fingerprint_digits(signing_fingerprint(officer)) != pinned_officer(site):
        raise _missing("what would leave was approved by a key that site.toml does not name")
    if not is_approved([approval], payload_sha256, officer):
        raise _missing("the data officer approved another set")
    return (approval,)


def approve_payload(site: SiteConfig, state: RoundState, payload_sha256: str) -> Approval:
    """Sign the payload with the officer's key and keep the approval.

    Raises:
        SettingsError: site.toml names no officer's key, or another one than it pins.
        KeyFileError: the key cannot be read.
    """
    if site.release.officer_key is None:
        raise SettingsError(
            "site.toml: release.officer_key is missing",
            hint="name the file of the data officer's own key, best on the officer's own stick",
        )
    if site.release.officer is None:
        raise SettingsError(
            "site.toml: release.officer is missing",
            hint="give the fingerprint that `init` printed for the data officer, as the officer "
            "has it on paper",
        )
    key = SigningKey.load(site.release.officer_key)
    if fingerprint_digits(key.fingerprint) != pinned_officer(site):
        raise SettingsError(
            "release.officer_key is not the key whose fingerprint release.officer names",
            hint="compare the fingerprint with the officer's enrolment",
        )
    approval = approve(payload_sha256, key)
    state.keep_approval(approval, key.public)
    return approval


def is_approved_here(site: SiteConfig, state: RoundState, payload_sha256: str) -> bool:
    """Whether the officer whom the site names has approved exactly this payload."""
    try:
        return bool(approvals_for(site, state, payload_sha256))
    except ApprovalMissing:
        return False


def pinned_officer(site: SiteConfig) -> str | None:
    """The digits of the fingerprint that site.toml names, if it names one."""
    return site.release.officer and fingerprint_digits(site.release.officer)


def _missing(what: str) -> ApprovalMissing:
    return ApprovalMissing(
        what, hint="read the page, then: fedcondense-site approve SITE.toml ROUND"
    )
