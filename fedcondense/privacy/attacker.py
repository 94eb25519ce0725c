"""What a guarantee allows any attacker, however able, who decides whether one unit took part.

Differential privacy is a bound on every such test (Wasserman and Zhou 2010): at each false positive
rate it caps the true positive rate. A data officer reads these caps, not epsilon.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from fedcondense.privacy.accounting import Mechanism, Spent, compose

DELTAS = (1e-5, 1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.25)  # one history has a guarantee at each of them
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Allowed:
    """Upper bounds in [0, 1]: true positive rates at two false positive rates, and the AUC."""

    tpr_at_0_1_percent: float
    tpr_at_1_percent: float
    auc: float


EVERYTHING = Allowed(1.0, 1.0, 1.0)  # without a guarantee


def allowed_by_gaussian(mu: float) -> Allowed:
    """Bounds under a Gaussian mechanism with all units at once, `mu` = 1 / sigma: exact.

    Dong, Roth and Su 2022, "Gaussian differential privacy": TPR = Phi(mu + Phi^-1(FPR)).
    """

    def tpr(fpr: float) -> float:
        return _phi(mu + _NORMAL.inv_cdf(fpr))

    return Allowed(tpr(0.001), tpr(0.01), _phi(mu / math.sqrt(2)))


def allowed_by(spent: Spent) -> Allowed:
    """Bounds under one (epsilon, delta).

    TPR is at most e^epsilon FPR + delta and, seen from the other hypothesis, at most
    1 - e^-epsilon (1 - delta - FPR). The area under the lower one is
    1 - (1 - delta)^2 / (1 + e^epsilon).
    """
    if not spent.bounded:
        return EVERYTHING
    shrunk = math.exp(-spent.epsilon)  # never e^epsilon: an epsilon of 5,000 would overflow
    kept = 1 - spent.delta

    def tpr(fpr: float) -> float:
        over = math.inf if shrunk == 0 else fpr / shrunk
        return min(1.0, over + spent.delta, 1 - shrunk * (kept - fpr))

    return Allowed(tpr(0.001), tpr(0.01), 1 - kept**2 * shrunk / (1 + shrunk))


def allowed(
    mechanisms: Sequence[Mechanism],
    *,
    compose: Callable[[Sequence[Mechanism], float], Spent] = compose,
) -> Allowed:
    """Bounds under all `mechanisms` together.

    Exact where every one reads all units at once: Gaussians compose to one whose squared mu is the
    sum of theirs. Else the least over the guarantees of the same history at `DELTAS`.
    """
    noises = [(of.sigma, of.steps) for of in mechanisms if of.sigma is not None]
    if len(noises) < len(mechanisms):
        return EVERYTHING
    if all(of.q == 1 for of in mechanisms):
        return allowed_by_gaussian(math.sqrt(sum(steps / sigma**2 for sigma, steps in noises)))
    bounds = [allowed_by(compose(mechanisms, delta)) for delta in DELTAS]
    return Allowed(
        min(bound.tpr_at_0_1_percent for bound in bounds),
        min(bound.tpr_at_1_percent for bound in bounds),
        min(bound.auc for bound in bounds),
    )


def _phi(z: float) -> float:
    return _NORMAL.cdf(z)
