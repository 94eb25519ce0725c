"""The drawings of a study report. Imports matplotlib: import this where a report is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from fedcondense.files.drawing import FIRST, INK, SECOND, SOFT, THIRD, draw
from fedcondense.files.figures import Difference
from fedcondense.files.page import MINUS, duration_text, size_text
from fedcondense.files.row_drawing import (
    PERCENT,
    canvas_of,
    draw_estimate,
    draw_interval,
    draw_shares,
    named_rows,
    set_last_apart,
    short,
)
from fedcondense.research.optional_plots import consistency_plot
from fedcondense.research.report_curves import WORDS, curve_key, curves_plot
from fedcondense.research.report_schema import Repetition, Scores, Seconds, SiteFigures, StudyReport

_POINTS = FuncFormatter(lambda value, _: _signed_points(value))
_BYTES = FuncFormatter(lambda value, _: size_text(value))


def _signed_points(value: float) -> str:
    text = f"{100 * value:+.3g}"
    return "0" if float(text) == 0 else text.replace("-", MINUS)


def joining_plot(repetition: Repetition, name: str) -> Markup:
    """Balanced accuracy of each site alone and joined, with intervals; the mean last."""
    alone, joined = repetition.scores.site_alone, repetition.scores.site_joined
    sites = [site for site in alone.sites if site in joined.sites]
    pairs = [(alone.sites[site], joined.sites[site]) for site in sites]

    def paint(figure: Figure) -> None:
        axes = named_rows(figure, [*sites, "mean"])
        set_last_apart(axes, len(sites) + 1)
        for row, (before, after) in enumerate([*pairs, (alone.mean, joined.mean)]):
            ends = before.balanced_accuracy, after.balanced_accuracy
            axes.plot([end.mean for end in ends], [row - 0.15, row + 0.15], color=SOFT, linewidth=1)
            draw_estimate(axes, ends[0], row - 0.15, FIRST)
            draw_estimate(axes, ends[1], row + 0.15, SECOND)
        axes.xaxis.set_major_formatter(PERCENT)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10)))
        axes.set_xlabel("balanced accuracy")

    return draw(
        paint,
        canvas_of(len(sites) + 1),
        name=name,
        description="balanced accuracy of each site alone and joined; the numbers stand in a table",
    )


def gain_plot(repetition: Repetition, name: str) -> Markup:
    """Gain of joining by site with its paired interval; the mean last."""
    gains = repetition.gains.joining

    def paint(figure: Figure) -> None:
        axes = named_rows(figure, [*gains.sites, "mean"])
        set_last_apart(axes, len(gains.sites) + 1)
        axes.axvline(0, color=INK, linewidth=1)
        for row, gain in enumerate([*gains.sites.values(), gains.mean]):
            _gain(axes, gain, row)
        axes.xaxis.set_major_formatter(_POINTS)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))
        axes.set_xlabel("gain of joining, percentage points")

    return draw(
        paint,
        canvas_of(len(gains.sites) + 1),
        name=name,
        description="gain of joining by site; the numbers stand in a table",
    )


def _gain(axes: Axes, gain: Difference, row: int) -> None:
    draw_interval(axes, gain.low, gain.high, row, THIRD)
    axes.plot([gain.difference], [row], "D", color=THIRD, markersize=6)


def sets_plot(scores: Scores, name: str) -> Markup:
    """Balanced accuracy of everything compared, best informed first."""
    rows = {
        "all real images": (scores.ceiling, INK),
        "joined, mean": (scores.site_joined.mean, SECOND),
        "alone, mean": (scores.site_alone.mean, FIRST),
        "global set": (scores.global_set, THIRD),
        "random, expanded": (scores.random_real_expanded, SOFT),
        "random real": (scores.random_real, SOFT),
    }

    return draw_shares(
        {label: (measures.balanced_accuracy, colour) for label, (measures, colour) in rows.items()},
        caption="balanced accuracy",
        name=name,
        description="balanced accuracy of all sets; the numbers stand in the table below",
    )


def bytes_plot(sites: Sequence[SiteFigures], name: str) -> Markup:
    """Sealed bytes of each site against the bytes of its real images, on a log axis."""

    def paint(figure: Figure) -> None:
        axes = named_rows(figure, [site.name for site in sites])
        axes.set_xscale("log")
        for row, site in enumerate(sites):
            ends = [max(1, site.sealed_bytes), max(1, site.real_bytes)]
            axes.plot(ends, [row, row], color=SOFT, linewidth=1)
            axes.plot(ends[0], row, "o", color=SECOND, markersize=8)
            axes.plot(ends[1], row, "s", color=FIRST, markersize=7)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=7))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(_BYTES)
        axes.margins(x=0.12)
        axes.set_xlabel("log axis")

    return draw(
        paint,
        canvas_of(len(sites)),
        name=name,
        description="sealed bytes and bytes of the real images by site, as in the table",
    )


def stages_plot(seconds: Seconds, name: str) -> Markup:
    """Wall-clock time of the four stages."""
    stages = {
        "start-up": seconds.start_up,
        "condensing": seconds.condense,
        "exchange": seconds.federation,
        "evaluation": seconds.evaluation,
    }

    def paint(figure: Figure) -> None:
        axes = named_rows(figure, list(stages))
        axes.barh(range(len(stages)), list(stages.values()), height=0.5, color=SECOND)
        for row, value in enumerate(stages.values()):
            axes.annotate(
                duration_text(value),
                (value, row),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                color=INK,
            )
        axes.set_xlim(0, 1.3 * max(1e-9, *stages.values()))
        axes.xaxis.set_major_locator(NullLocator())
        axes.spines["bottom"].set_visible(False)

    return draw(
        paint,
        canvas_of(len(stages)),
        name=name,
        description="time of the stages, as in the table",
    )


@dataclass(frozen=True)
class ValuePlots:
    """The two drawings of what joining is worth, of one repetition."""

    seed: int
    joining: Markup
    gain: Markup


def drawings(report: StudyReport) -> dict[str, object]:
    """All drawings, and the key of the curves, by the names that the template knows."""
    external = report.external
    return {
        "value_plots": [
            ValuePlots(
                repetition.seed,
                joining_plot(repetition, f"joining-{i}"),
                gain_plot(repetition, f"gain-{i}"),
            )
            for i, repetition in enumerate(report.repetitions)
        ],
        "sets_plot": sets_plot(report.scores, "sets"),
        "external_plot": sets_plot(external.scores, "external-sets") if external else None,
        "curves": [
            curves_plot(site, f"curve-{i}", _curve_title(report, site))
            for i, site in enumerate(report.sites)
            if site.curve
        ],
        "curve_key": curve_key(dict.fromkeys(name for site in report.sites for name in site.curve)),
        "curve_words": WORDS,
        "consistency_plot": _consistency(report),
        "bytes_plot": bytes_plot(report.repetitions[0].sites, "bytes"),
        "stages_plot": stages_plot(report.seconds, "stages"),
    }


def _consistency(report: StudyReport) -> Markup | None:
    if report.consistency is None:
        return None
    return consistency_plot(report.consistency, len(report.study.classes), "consistency")


def _curve_title(report: StudyReport, site: SiteFigures) -> str:
    several = len(report.repetitions) > 1
    seed = f", seed {report.repetitions[site.repetition].seed}" if several else ""
    return short(site.name) + seed
