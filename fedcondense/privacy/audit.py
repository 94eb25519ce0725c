"""Which audits run, and what they found; see `findings` for what a verdict is.

Provenance is no audit of this kind: it is decided by the gate itself, from what the payload says.
"""

from __future__ import annotations

from fedcondense.config.site import ReleasePolicy
from fedcondense.config.study import Study
from fedcondense.data.dataset import LabeledImages
from fedcondense.errors import TooFewImages
from fedcondense.exchange.contribution import SyntheticArrays
from fedcondense.learning.randomness import Seed
from fedcondense.privacy import membership, memorisation
from fedcondense.privacy.findings import AuditResult, Audits, Finding, Verdict
from fedcondense.privacy.membership import membership_audit
from fedcondense.privacy.memorisation import memorisation_audit
from fedcondense.privacy.shadows import Redistill
from fedcondense.privacy.subject import Subject
from fedcondense.progress import Watch, silent

__all__ = ["AuditResult", "Audits", "Finding", "Redistill", "Verdict", "not_run", "run_audits"]

LEAST_HELD_OUT = 0.2  # share of groups, below which no audit counts


def run_audits(  # noqa: PLR0913  (everything that is known of a set meets here)
    arrays: SyntheticArrays,
    *,
    payload_sha256: str,
    study: Study,
    train: LabeledImages,
    held_out: LabeledImages,
    policy: ReleasePolicy,
    redistill: Redistill | None,
    seed: Seed,
    watch: Watch = silent,
) -> Audits:
    """Run the audits of the policy's preset on the decoded bytes of one payload.

    Args:
        arrays: the payload, decoded: what a receiver would see.
        payload_sha256: of the payload.
        study: by which it was condensed.
        train: all images that the method saw.
        held_out: images of other groups, which it never saw.
        policy: what the site asks.
        redistill: condenses a part of the images in the same way; only `full` asks for it.
        seed: folds, halves and shadows.
        watch: is told how far it is.
    """
    if policy.held_out < LEAST_HELD_OUT:
        why = f"held_out is {policy.held_out:g}, the audits need {LEAST_HELD_OUT:g}"
        return not_run(payload_sha256, policy, why)
    subject = Subject(arrays, study, train, held_out)
    results = [memorisation_audit(subject, seed=seed.child(memorisation.AUDIT), watch=watch)]
    if policy.audits == "full":
        results.append(_membership(subject, redistill, seed.child(membership.AUDIT), watch))
    return Audits(payload_sha256, policy.audits, tuple(results))


def _membership(
    subject: Subject, redistill: Redistill | None, seed: Seed, watch: Watch
) -> AuditResult:
    if redistill is None:
        return AuditResult.not_run(membership.AUDIT, "nothing to condense shadow sets with")
    try:
        return membership_audit(subject, redistill=redistill, seed=seed, watch=watch)
    except TooFewImages as error:
        return AuditResult.not_run(membership.AUDIT, f"half of the images: {error.message}")


def not_run(payload_sha256: str, policy: ReleasePolicy, why: str) -> Audits:
    """None of the audits that the policy asks for, and why they could not be run."""
    names = (memorisation.AUDIT, membership.AUDIT)[: 2 if policy.audits == "full" else 1]
    results = tuple(AuditResult.not_run(name, why) for name in names)
    return Audits(payload_sha256, policy.audits, results)
