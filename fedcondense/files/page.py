"""One self-contained HTML page: autoescaped, no script, nothing loaded from anywhere.

A page is a Jinja2 template of some package's own `templates` folder over `page.html` of this one.
What it shows may be untrusted (names of sites and classes), so three locks hold: every value is
escaped, the page's own security policy allows no script and no address, and templates have no
way to mark a value as already escaped.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from fedcondense.files.storage import write_atomically

THIN = "\N{NARROW NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"

Number = int | float


class Shade(NamedTuple):
    """One colour of the page, on light and on dark paper."""

    light: str
    dark: str


# `first` to `fourth` are the vermilion, blue, green and purple of Okabe & Ito (2008), which people
# with any colour vision tell apart, darkened or lightened until lines reach 3:1 on their paper.
PALETTE: Mapping[str, Shade] = {
    "paper": Shade("#fbfbf9", "#14181c"),
    "card": Shade("#ffffff", "#1b2126"),
    "ink": Shade("#1b2329", "#e8ecef"),
    "soft": Shade("#55616b", "#a3afb9"),
    "line": Shade("#dfe4e8", "#333c44"),
    "tint": Shade("#f1f4f6", "#20272d"),
    "first": Shade("#cf5a00", "#f0a050"),
    "second": Shade("#0069a8", "#62b6ec"),
    "third": Shade("#008462", "#3fc79e"),
    "fourth": Shade("#a8528a", "#d998c2"),
    "warning": Shade("#8f6200", "#e6b94a"),
    "caution": Shade("#fff6de", "#2b2513"),
}


def _figure(value: Number, text: str) -> Markup:
    """A figure as people read it, with the exact value for machines."""
    return Markup('<data value="{}">{}</data>').format(repr(value), text)


def percent(value: Number) -> Markup:
    """A share in [0, 1] as a percentage with one decimal."""
    return _figure(value, f"{100 * value:.1f}{THIN}%")


def whole_percent(value: Number) -> Markup:
    """A share in [0, 1] as a whole percentage."""
    return _figure(value, f"{100 * value:.0f}{THIN}%")


def points(value: Number) -> Markup:
    """A difference of shares as signed percentage points with one decimal."""
    text = f"{100 * value:+.1f}"
    return _figure(value, "0.0" if float(text) == 0 else text.replace("-", MINUS))


def ratio(value: Number) -> Markup:
    """A number in [0, 1] with three decimals."""
    return _figure(value, f"{value:.3f}")


def count(value: Number) -> Markup:
    """A number of things; a mean number keeps one decimal."""
    text = f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"
    return _figure(value, text.replace(",", THIN))


def size(value: Number) -> Markup:
    """A number of bytes."""
    return _figure(value, size_text(value))


def size_text(value: Number) -> str:
    """A number of bytes in the decimal unit that keeps it short, with three digits."""
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.3g}{THIN}{unit}"
        value /= 1000
    return f"{value:.1f}{THIN}GB"


def megabytes(value: Number) -> Markup:
    """A number of megabytes."""
    return _figure(value, size_text(value * 1e6))


def duration(value: Number) -> Markup:
    """A number of seconds."""
    return _figure(value, duration_text(value))


def duration_text(value: Number) -> str:
    """A number of seconds as a person says it."""
    if value < 59.5:
        return f"{value:.1f}{THIN}s" if value < 9.95 else f"{value:.0f}{THIN}s"
    minutes, seconds = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes}{THIN}min {seconds:02d}{THIN}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}{THIN}h {minutes:02d}{THIN}min"


def breakable(text: str) -> Markup:
    """A name that may go on in the next line after each underscore."""
    return escape(text).replace("_", Markup("_<wbr>"))


def picture(pixels: UInt8[np.ndarray, "c h w"], description: str, *, width: int = 64) -> Markup:
    """One small image with its pixels kept crisp, at the whole multiple nearest to `width`.

    `pixels` has one channel (grey) or three (red, green, blue).
    """
    canvas = Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1))
    file = io.BytesIO()
    canvas.save(file, format="PNG", optimize=True)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    scale = max(1, round(width / canvas.width))
    return Markup(
        '<img class="pixels" src="data:image/png;base64,{}" alt="{}" width="{}" height="{}">'
    ).format(data, description, scale * canvas.width, scale * canvas.height)


@dataclass(frozen=True)
class Page:
    """A template, and the package whose `templates` folder holds it.

    The template extends `page.html` and may import the macros of `parts.html`, both of this
    package. It is given the functions of this module that turn figures into text to call.
    """

    package: str
    template: str

    def render(self, values: Mapping[str, object]) -> bytes:
        """The page as UTF-8; equal values give equal bytes."""
        return _environment(self.package).get_template(self.template).render(values).encode()

    def write(self, path: Path, values: Mapping[str, object]) -> None:
        """Render the page and write it atomically."""
        write_atomically(path, self.render(values))


def _environment(package: str) -> Environment:
    """Where the templates of one package are found."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("fedcondense.files")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = (percent, whole_percent, points, ratio, count, size, megabytes, duration, breakable)
    environment.globals.update({format.__name__: format for format in formats})
    del environment.filters["safe"]  # no template can let a value through unescaped
    environment.globals["palette"] = PALETTE
    return environment
