"""A matplotlib figure as inline SVG in the colours of the page that it stands on.

Matplotlib is a heavy import: import this module where something is drawn, not where a page is
named. Figures are made through matplotlib's object interface; nothing global is changed.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from fedcondense.files.page import PALETTE

INK, SOFT, LINE = (PALETTE[name].light for name in ("ink", "soft", "line"))
FIRST, SECOND, THIRD = (PALETTE[name].light for name in ("first", "second", "third"))

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's own font
    "text.parse_math": False,  # a "$" in the name of a class is a dollar
    "font.size": 11.5,
    "axes.labelsize": 11.5,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "text.color": INK,
    "axes.titlecolor": INK,
    "axes.labelcolor": SOFT,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "xtick.minor.size": 0,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
}


@dataclass(frozen=True)
class Canvas:
    """Size of a drawing in units that are pixels where the page shows it at its own width."""

    width: int
    height: int


@contextmanager
def _style(salt: str) -> Iterator[None]:
    """Our defaults alone: a matplotlibrc on this machine changes nothing."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE | {"svg.hashsalt": salt})
        # Only measuring the text needs the glyph; the reader's browser has its own fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def draw(paint: Callable[[Figure], None], canvas: Canvas, *, name: str, description: str) -> Markup:
    """Let `paint` draw on an empty figure; give it as SVG that scales with its box.

    Args:
        paint: draws with the colours of this module, so that they follow light and dark mode.
        canvas: proportions of the drawing, and with its font size its density.
        name: unique on the page, of letters, digits and hyphens; prefixes every id.
        description: what a reader who cannot see it is told.
    """
    file = io.StringIO()
    with _style(name):
        figure = Figure(figsize=(canvas.width / 72, canvas.height / 72), dpi=72)
        paint(figure)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return Markup(_inline(file.getvalue(), name, str(escape(description))))


def _inline(svg: str, name: str, description: str) -> str:
    """Matplotlib's file as an element: no prologue, no addresses, ids and colours of the page."""
    view = re.search(r'viewBox="[^"]*"', svg)
    assert view is not None  # matplotlib writes one
    body = svg[svg.index("</metadata>") + len("</metadata>") :]
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r"<style.*?</style>", "", body, count=1, flags=re.DOTALL)
    body = body.replace("xlink:href=", "href=")
    body = re.sub(r' id="', f' id="{name}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = re.sub(r' transform="rotate\(-0 [^"]*"', "", body)
    body = re.sub(r' d="[^"]*"', lambda path: _rounded(path[0]), body)
    for shade, colour in PALETTE.items():
        body = re.sub(rf"(?<=: ){colour.light}(?=[;\"])", f"var(--{shade})", body)
    opening = f'<svg class="drawing" role="img" aria-label="{description}" {view[0]}>'
    return opening + re.sub(r">\s+<", "><", body).strip()


def _rounded(path: str) -> str:
    """A hundredth of a pixel is enough for any screen and printer."""
    path = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", path)
    return re.sub(r"\s+", " ", path)
