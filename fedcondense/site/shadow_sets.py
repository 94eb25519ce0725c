"""Sets condensed from a part of a site's images as the set that would leave was, for its audits.

They are charged to nobody: what comes out never leaves. A shadow begins as the first round does:
the site's last set has seen all of its images, also those that a shadow must not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from fedcondense.config.privacy import Declared, DpSgd
from fedcondense.config.site import SiteConfig
from fedcondense.config.study import Study
from fedcondense.config.trajectory import Mtt
from fedcondense.data.dataset import LabeledImages
from fedcondense.distill.methods import distill
from fedcondense.distill.trajectories import Shelf
from fedcondense.exchange.contribution import SyntheticArrays
from fedcondense.learning.randomness import Seed
from fedcondense.privacy import dp_sgd
from fedcondense.privacy.accounting import Mechanism
from fedcondense.site.payload import as_it_would_leave
from fedcondense.site.plan import declared_units, planned_mechanisms
from fedcondense.site.sources import Basis, open_source

Redistill = Callable[[LabeledImages, Seed], SyntheticArrays]


def redistill_for(site: SiteConfig, study: Study, labels: Sequence[int]) -> Redistill:
    """Condense half of the images into a set of the classes `labels`, those of the audited set.

    How many images a class must have was decided for that set and is not asked again. Under
    differential privacy half as many units are declared, with noise as for all of them: so noise
    and patients stand to each other as they did.
    """
    halved = _halved(site)
    basis = Basis(_mechanisms(site, halved, study), kept=tuple(labels))

    def redistill(images: LabeledImages, seed: Seed) -> SyntheticArrays:
        grant = open_source(halved, study, images, basis, seed)
        experts = grant.experts or Shelf()
        synthetic = distill(grant.source, study, seed=seed, experts=experts)
        return as_it_would_leave(synthetic, study)

    return redistill


def _halved(site: SiteConfig) -> SiteConfig:
    declared = site.declared
    if declared is None:
        return site
    patients = None if declared.patients is None else _half(declared.patients)
    half = Declared(images=_half(declared.images), patients=patients)
    return site.model_copy(update={"declared": half})


def _half(number: int) -> int:
    return max(1, number // 2)


def _mechanisms(site: SiteConfig, halved: SiteConfig, study: Study) -> tuple[Mechanism, ...]:
    """What was charged for the set, with the rate and the steps that go with half of the units."""
    charged, privacy = planned_mechanisms(site, study), study.privacy
    if not isinstance(privacy, DpSgd):
        return charged
    units = declared_units(halved, privacy)
    q, steps = dp_sgd.planned_steps(study.settings(Mtt).experts, units)
    counts, experts = charged
    return counts, replace(experts, q=q, steps=steps)
