"""How condensing went at one site, drawn.

Imports matplotlib: import this where a report is written.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from fedcondense.files.drawing import Canvas, draw
from fedcondense.files.page import PALETTE
from fedcondense.research.report_schema import SiteFigures

Course = Sequence[int | float | None]
_PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.3g} %")


def curves_plot(site: SiteFigures, name: str, title: str) -> Markup:
    """Losses (log axis) above accuracies of the model queue, by iteration, of one site."""
    losses, accuracies = split_curve(site.curve)

    def paint(figure: Figure) -> None:
        upper = figure.add_axes((0.17, 0.46, 0.8, 0.44))
        lower = figure.add_axes((0.17, 0.17, 0.8, 0.22), sharex=upper)
        _lines(upper, site.curve["iteration"], losses)
        _lines(lower, site.curve["iteration"], accuracies)
        if any(value and value > 0 for values in losses.values() for value in values):
            upper.set_yscale("log", nonpositive="mask")
            upper.yaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=6))
            upper.yaxis.set_minor_locator(NullLocator())
            upper.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        upper.tick_params(labelbottom=False)
        lower.yaxis.set_major_formatter(_PERCENT)
        lower.set_ylim(0, 1.02)
        lower.set_yticks((0, 0.5, 1))
        lower.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        lower.set_xlabel("iteration")
        upper.set_title(title)

    return draw(
        paint,
        Canvas(256, 232),
        name=name,
        description=f"losses and queue accuracy by iteration at {title}",
    )


def split_curve(curve: Mapping[str, Course]) -> tuple[dict[str, Course], dict[str, Course]]:
    """The losses, and the accuracies as shares of one, of a site's curve."""
    named = {name: course for name, course in curve.items() if name != "iteration"}
    losses = {name: course for name, course in named.items() if "accuracy" not in name}
    accuracies = {name: _as_share(course) for name, course in named.items() if "accuracy" in name}
    return losses, accuracies


def _as_share(course: Course) -> Course:
    """Methods may report percentages (a reading of the paper); the axis is of shares."""
    unit = 100 if max((value for value in course if value is not None), default=0) > 1 else 1
    return [None if value is None else value / unit for value in course]


def curve_key(names: Iterable[str]) -> dict[str, str]:
    """The shade of the page in which each figure of a curve is drawn; losses first."""
    losses, accuracies = split_curve(dict.fromkeys(names, ()))
    shades = ("second", "first", "fourth")
    key = {name: shades[i % len(shades)] for i, name in enumerate(losses)}
    return key | dict.fromkeys(accuracies, "third")


def _lines(axes: Axes, iteration: Course, courses: Mapping[str, Course]) -> None:
    for name, shade in curve_key(courses).items():
        axes.plot(_known(iteration), _known(courses[name]), color=PALETTE[shade].light, lw=1.4)


def _known(course: Course) -> list[int | float]:
    """Matplotlib leaves a gap at NaN."""
    return [math.nan if value is None else value for value in course]
