"""What mechanisms that touched patients cost together, and how much noise a target asks for.

All of them are one history in Opacus' PRV accountant (Gopi et al. 2021, "Numerical composition of
differential privacy"), of which we take the upper bound; where it cannot compute, the Renyi
accountant (Mironov et al. 2019) answers and is named. Never the Gaussian approximation: on
subsampled steps it falls below the true cost.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from fedcondense.errors import SettingsError

Accountant = Literal["prv", "rdp", "none"]  # none: nothing to compose, or no bound at all
History = list[tuple[float, float, int]]  # (sigma, q, steps)

EPSILON_ERROR = 0.01  # the PRV accountant adds it to what it computes
LARGEST_GRID = 2**23  # points; each row of the history holds a few such arrays of doubles
LEAST_SIGMA, MOST_SIGMA = 0.05, 1e5  # beyond them no study makes sense
PRECISION = 2e-4  # of a sigma that is solved for
DIGITS = 4  # to which it is rounded up
WHOLE_ORDERS = range(2, 64)  # of Renyi divergences: a rougher bound, ten times as fast


@dataclass(frozen=True)
class Mechanism:
    """One randomised access to patient data.

    `sigma` is the standard deviation of the Gaussian noise over the sensitivity to adding or
    removing one unit; none means no noise, which nothing bounds. `q` is the Poisson sampling rate,
    1 for all units at once.
    """

    name: str
    sigma: float | None
    q: float = 1.0
    steps: int = 1

    def __post_init__(self) -> None:
        if self.sigma is not None and not (math.isfinite(self.sigma) and self.sigma > 0):
            raise ValueError("sigma is no positive number")
        if not 0 < self.q <= 1 or self.steps < 1:
            raise ValueError("q lies outside (0, 1], or there is no step")


@dataclass(frozen=True)
class Planned:
    """A mechanism whose noise is still to be found: `weight` times what all planned share."""

    name: str
    q: float = 1.0
    steps: int = 1
    weight: float = 1.0


@dataclass(frozen=True)
class Spent:
    """An (epsilon, delta) and who computed it; an infinite epsilon is "not bounded"."""

    epsilon: float
    delta: float
    accountant: Accountant

    @property
    def bounded(self) -> bool:
        """Whether there is a guarantee at all."""
        return math.isfinite(self.epsilon)


def compose(mechanisms: Sequence[Mechanism], delta: float) -> Spent:
    """What all `mechanisms` on the same units cost together at `delta`: an upper bound.

    The order does not matter, to the last bit.

    Raises:
        SettingsError: Opacus is not installed.
    """
    if not mechanisms:
        return Spent(0.0, delta, "none")
    history = _history(mechanisms)
    if history is None:
        return Spent(math.inf, delta, "none")
    with _quiet():
        upper = _prv(history, delta)
        if upper is not None:
            return Spent(upper, delta, "prv")
        return Spent(_rdp(history, delta), delta, "rdp")


def sigma_for(
    planned: Sequence[Planned | Mechanism], *, epsilon: float, delta: float, repeat: int = 1
) -> tuple[Mechanism, ...]:
    """The plan with the least noise that, repeated, costs at most `epsilon` by `compose`.

    Mechanisms keep their sigma, the planned ones get theirs, in the order given and rounded up; so
    a ledger that composes with the same function accepts the plan.

    Args:
        planned: one round.
        epsilon: most that all rounds may cost.
        delta: at which they are composed.
        repeat: number of rounds.

    Raises:
        SettingsError: no noise in a sensible range reaches `epsilon`.
    """
    bounds = _bounds(planned)
    fixed = [of for of in planned if isinstance(of, Mechanism)]

    def by_renyi(scale: float) -> float:
        history = _history(_with_noise(planned, scale) * repeat)
        return math.inf if history is None else _rdp(history, delta, WHOLE_ORDERS)

    def cost(scale: float) -> float:
        return compose(_with_noise(planned, scale) * repeat, delta).epsilon

    if compose(fixed * repeat, delta).epsilon >= epsilon:
        raise _unreachable(repeat, epsilon, delta)
    with _quiet():  # fast also far from the answer, where the other accountant is slow
        near = least_scale(by_renyi, epsilon, start=1.0, bounds=bounds, precision=0.05)
    scale = least_scale(cost, epsilon, start=near or 1.0, bounds=bounds)
    if scale is None:
        raise _unreachable(repeat, epsilon, delta)
    return _with_noise(planned, scale)


def _unreachable(repeat: int, epsilon: float, delta: float) -> SettingsError:
    return SettingsError(
        f"no noise keeps {repeat} rounds within epsilon {epsilon:g} at delta {delta:g}",
        hint="raise [privacy] epsilon, or plan fewer rounds, steps or experts",
    )


def _bounds(planned: Sequence[Planned | Mechanism]) -> tuple[float, float]:
    weights = [of.weight for of in planned if isinstance(of, Planned)]
    if not weights or min(weights) <= 0:
        raise ValueError("nothing is left to solve for, or a weight is not positive")
    return LEAST_SIGMA / min(weights), MOST_SIGMA / max(weights)


def _with_noise(planned: Sequence[Planned | Mechanism], scale: float) -> tuple[Mechanism, ...]:
    return tuple(
        Mechanism(of.name, _rounded_up(scale * of.weight), of.q, of.steps)
        if isinstance(of, Planned)
        else of
        for of in planned
    )


def _rounded_up(value: float) -> float:
    """The next decimal number of `DIGITS` figures."""
    exponent = math.floor(math.log10(value)) - DIGITS + 1
    return float(f"{math.ceil(value / 10.0**exponent)}e{exponent}")


def least_scale(
    cost: Callable[[float], float],
    limit: float,
    *,
    start: float,
    bounds: tuple[float, float],
    precision: float = PRECISION,
) -> float | None:
    """Smallest scale within `bounds` whose cost, which falls with it, is at most `limit`.

    The search begins at `start` and goes out in growing steps; then every guess by interpolation
    in logarithms is moved a little past the answer, by turns to either side, so that both ends
    come near. None where even the greatest scale costs more.
    """
    cost = cache(cost)
    found = _bracket(cost, limit, min(max(start, bounds[0]), bounds[1]), bounds)
    if found is None:
        return None
    low, high = found
    turn = 0
    while high > low * (1 + precision):
        guess = math.sqrt(low * high) if turn % 3 == 2 else _crossing(cost, limit, low, high)
        nudged = guess * (1 + (precision / 3 if turn % 2 == 0 else -precision / 3))
        middle = nudged if low < nudged < high else math.sqrt(low * high)
        low, high = (low, middle) if cost(middle) <= limit else (middle, high)
        turn += 1
    return high


def _bracket(
    cost: Callable[[float], float], limit: float, start: float, bounds: tuple[float, float]
) -> tuple[float, float] | None:
    """A scale that costs too much and one that does not; the least, twice, if that fits already."""
    least, most = bounds
    low = high = start
    factor = 1.05
    while cost(high) > limit:
        if high == most:
            return None
        low, high, factor = high, min(high * factor, most), factor**2
    while cost(low) <= limit:
        if low == least:
            return least, least
        low, high, factor = max(low / factor, least), low, factor**2
    return low, high


def _crossing(cost: Callable[[float], float], limit: float, low: float, high: float) -> float:
    """Where the straight line between both ends, in logarithms, meets `limit`."""
    if math.isinf(cost(low)) or cost(high) == 0:
        return math.sqrt(low * high)
    above, below = math.log(cost(low) / limit), math.log(cost(high) / limit)
    return low * (high / low) ** (above / (above - below))


def _history(mechanisms: Sequence[Mechanism]) -> History | None:
    """Equal mechanisms as one row of more steps, in a fixed order; none if one has no noise."""
    steps: Counter[tuple[float, float]] = Counter()
    for of in mechanisms:
        if of.sigma is None:
            return None
        steps[of.sigma, of.q] += of.steps
    return [(sigma, q, count) for (sigma, q), count in sorted(steps.items())]


def _prv(history: History, delta: float) -> float | None:
    """Upper bound by privacy loss random variables; none where they cannot be computed."""
    if _grid(history, delta) > LARGEST_GRID:
        return None
    try:
        upper = float(_filled("PRVAccountant", history).get_epsilon(delta, eps_error=EPSILON_ERROR))
    except (ArithmeticError, RuntimeError, ValueError):
        return None
    return max(0.0, upper) if math.isfinite(upper) else None


def _grid(history: History, delta: float) -> float:
    """About how many points the PRV accountant would lay out: with little noise, billions."""
    delta_error = delta / 1_000
    widest = _rdp(history, delta_error / 4, WHOLE_ORDERS) + 3
    steps = sum(row[2] for row in history)
    mesh = EPSILON_ERROR / math.sqrt(steps * math.log(12 / delta_error) / 2)
    return 2 * widest / mesh


def _rdp(history: History, delta: float, orders: Sequence[int] | None = None) -> float:
    epsilon = float(_filled("RDPAccountant", history).get_epsilon(delta, alphas=orders))
    return math.inf if math.isnan(epsilon) else max(0.0, epsilon)


def _filled(kind: Literal["PRVAccountant", "RDPAccountant"], history: History) -> Any:
    try:
        from opacus import accountants  # takes seconds, and only privacy needs it
    except ImportError as error:
        raise SettingsError(
            "differential privacy needs Opacus, which is not installed",
            hint="pip install 'opacus>=1.6,<2'",
        ) from error
    accountant = getattr(accountants, kind)()
    accountant.history = list(history)
    return accountant


@contextmanager
def _quiet() -> Iterator[None]:
    """Both accountants warn of logarithms of zero, and of orders at the end of their list.

    Neither loosens an upper bound.
    """
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
