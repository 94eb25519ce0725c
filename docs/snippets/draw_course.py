"""Draw how a condensation went, from the journal that the site keeps of it.

python docs/snippets/draw_course.py runs/NAME/.../round-001/log.jsonl PICTURE.png

Above: losses and step sizes. Below: shares of one; those of single layers where there are any.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

KEPT_BY_ALL = {"stage", "done", "total", "seconds", "megabytes"}


def courses(journal: Path) -> dict[str, list[tuple[int, float]]]:
    """Iteration and value of every figure that a method reports, by its name."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in journal.read_text().splitlines():
        step = json.loads(line)
        if step["stage"] == "condensing":
            for name in step.keys() - KEPT_BY_ALL:
                found.setdefault(name, []).append((step["done"], step[name]))
    return found


def is_share(name: str) -> bool:
    return "share" in name or "accuracy" in name


def shown_below(names: list[str]) -> list[str]:
    """Single layers in place of their mean; of a layer the weights, not the few other numbers."""
    layers = [name for name in names if " " in name and name.endswith("weight")]
    return layers or [name for name in names if is_share(name)]


def draw(found: dict[str, list[tuple[int, float]]]) -> Figure:
    figure = Figure(figsize=(7.2, 4.4), dpi=130, layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    names = sorted(found)
    for name in (name for name in names if not is_share(name) and " " not in name):
        upper.plot(*zip(*found[name], strict=True), lw=1.3, label=name)
    for name in shown_below(names):
        lower.plot(*zip(*found[name], strict=True), lw=1.3, label=name.partition(" ")[2] or name)
    upper.set_yscale("log", nonpositive="mask")
    lower.set_ylabel("share")
    lower.set_xlabel("iteration")
    for axes in (upper, lower):
        axes.grid(color="#dddddd", lw=0.6)
        axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    draw(courses(Path(sys.argv[1]))).savefig(sys.argv[2], metadata={"Software": None})
