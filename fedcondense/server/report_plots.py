"""The drawing of a server's report. Imports matplotlib: import this where a report is written."""

from __future__ import annotations

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedcondense.files.drawing import FIRST, SECOND, THIRD, draw
from fedcondense.files.row_drawing import PERCENT, canvas_of, draw_estimate, named_rows
from fedcondense.server.report_figures import SetScores


def measures_plot(scores: SetScores, name: str) -> Markup:
    """Every measure that is a share, with its interval."""
    rows = {
        "balanced accuracy": (scores.balanced_accuracy, SECOND),
        "AUROC": (scores.auroc, THIRD),
        "sens. at 90 % sp.": (scores.sensitivity_at_90_specificity, THIRD),
        "macro F1": (scores.macro_f1, SECOND),
        "accuracy": (scores.accuracy, FIRST),
    }

    def paint(figure: Figure) -> None:
        axes = named_rows(figure, list(rows))
        for row, (estimate, colour) in enumerate(rows.values()):
            draw_estimate(axes, estimate, row, colour)
        axes.xaxis.set_major_formatter(PERCENT)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10)))
        axes.set_xlabel("score")

    return draw(
        paint,
        canvas_of(len(rows)),
        name=name,
        description="the scores of the global set; the numbers stand in the table below",
    )
