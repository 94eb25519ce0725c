"""The drawing of a server's report. Imports matplotlib: import this where a report is written."""

from __future__ import annotations

from markupsafe import Markup

from fedcondense.files.drawing import FIRST, SECOND, THIRD
from fedcondense.files.row_drawing import draw_shares
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

    return draw_shares(
        rows,
        caption="score",
        name=name,
        description="the scores of the global set; the numbers stand in the table below",
    )
