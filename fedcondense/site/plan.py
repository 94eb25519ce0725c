"""What a study will do to a site's patients, and what that costs: planned before an image is read.

Everything here follows from the study and from numbers that the site declares public.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedcondense.config.privacy import DpEmbed, DpSgd, FormalPrivacy, Unit
from fedcondense.config.site import SiteConfig
from fedcondense.config.study import Study
from fedcondense.config.trajectory import Mtt
from fedcondense.errors import SettingsError
from fedcondense.privacy import class_counts, dp_embed, dp_sgd
from fedcondense.privacy.accounting import Mechanism, Planned, sigma_for
from fedcondense.privacy.chain import Row, State
from fedcondense.privacy.ledger import Access

PAID = frozenset({State.CHARGED, State.UNBOUNDED})
NO_NOISE = (Mechanism("images", None),)  # mode none: nothing bounds what a method sees


def planned_mechanisms(site: SiteConfig, study: Study) -> tuple[Mechanism, ...]:
    """The accesses to patients of one round, with the least noise that meets the study's epsilon.

    The epsilon is that of all rounds together, each of which costs the same.

    Raises:
        SettingsError: the site declares no numbers, or no noise in a sensible range suffices.
    """
    privacy = study.privacy
    if not isinstance(privacy, FormalPrivacy):
        return NO_NOISE
    units = declared_units(site, privacy)
    return sigma_for(
        _accesses(study, units),
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        repeat=study.rounds,
    )


def rounds_to_come(study: Study, rows: Sequence[Row]) -> int:
    """How many rounds of the study have no paid row yet."""
    paid = {row.round for row in rows if row.study == study.digest and row.state in PAID}
    return study.rounds - len(paid & set(range(1, study.rounds + 1)))


def access_of(study: Study, round: int) -> Access:
    """For what patients are read, as the ledger writes it down."""
    privacy = study.privacy
    if not isinstance(privacy, FormalPrivacy):
        return Access(study=study.digest, round=round, mode=privacy.mode)
    return Access(
        study=study.digest,
        round=round,
        mode=privacy.mode,
        unit=privacy.unit,
        delta=privacy.delta,
        images_per_patient=_images_per_patient(privacy),
        clip=privacy.clip if isinstance(privacy, DpSgd) else 1.0,
    )


def declared_units(site: SiteConfig, privacy: FormalPrivacy) -> int:
    """The number of units that the site makes public.

    Raises:
        SettingsError: it declares none.
    """
    units = None if site.declared is None else site.declared.units(privacy.unit)
    if units is None:
        raise SettingsError(
            f"site.toml: [declared] {privacy.unit.value}s is missing",
            hint="noise is planned from a number that the site makes public, without reading data",
        )
    return units


def _images_per_patient(privacy: FormalPrivacy) -> int | None:
    """The most that one patient gives; class embeddings average however many there are."""
    if isinstance(privacy, DpSgd) and privacy.unit is Unit.PATIENT:
        return privacy.images_per_patient
    return None


def _accesses(study: Study, units: int) -> tuple[Planned | Mechanism, ...]:
    match study.privacy:
        case DpEmbed():
            return (Planned(dp_embed.MECHANISM),)
        case DpSgd():
            q, steps = dp_sgd.planned_steps(study.settings(Mtt).experts, units)
            counts = Mechanism(class_counts.MECHANISM, class_counts.SIGMA)
            return counts, Planned(dp_sgd.MECHANISM, q, steps)
    raise AssertionError("asked of a study with differential privacy")
