"""Drawings of named rows with intervals. Imports matplotlib: import where something is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fedcondense.files.drawing import INK, SOFT, Canvas, draw
from fedcondense.files.figures import Estimate
from fedcondense.files.page import Number

WIDTH = 410  # px: two drawings side by side on a desk, one below the other on a telephone
LONGEST_LABEL = 17  # characters that fit beside a row
PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.3g} %")


def short(name: str) -> str:
    """A name as it fits beside a row."""
    return name if len(name) <= LONGEST_LABEL else name[: LONGEST_LABEL - 1] + "…"


def canvas_of(rows: int) -> Canvas:
    """Room for so many rows and the caption of their axis."""
    return Canvas(WIDTH, 62 + 30 * rows)


def named_rows(figure: Figure, names: Sequence[str]) -> Axes:
    """Axes with one named row per entry from the top, and room for a caption of the axis."""
    height = figure.get_figheight() * 72
    axes = figure.add_axes((0.3, 42 / height, 0.68, 1 - 48 / height))
    axes.set_yticks(range(len(names)), [short(name) for name in names], color=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    return axes


def draw_shares(
    rows: Mapping[str, tuple[Estimate, str]], *, caption: str, name: str, description: str
) -> Markup:
    """Shares with their intervals, each in its colour, one named row below the other."""

    def paint(figure: Figure) -> None:
        axes = named_rows(figure, list(rows))
        for row, (estimate, colour) in enumerate(rows.values()):
            draw_estimate(axes, estimate, row, colour)
        axes.xaxis.set_major_formatter(PERCENT)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10)))
        axes.set_xlabel(caption)

    return draw(paint, canvas_of(len(rows)), name=name, description=description)


def draw_interval(axes: Axes, low: float, high: float, row: Number, colour: str) -> None:
    """A bar from `low` to `high`."""
    axes.plot([low, high], [row, row], color=colour, linewidth=1.6, alpha=0.6)


def draw_estimate(axes: Axes, estimate: Estimate, row: Number, colour: str) -> None:
    """A mean on the bar of its interval."""
    draw_interval(axes, estimate.low, estimate.high, row, colour)
    axes.plot([estimate.mean], [row], "o", color=colour, markersize=7)


def set_last_apart(axes: Axes, rows: int) -> None:
    """A rule above the last row, which is a mean."""
    axes.axhline(rows - 1.5, color=SOFT, linewidth=0.8)
