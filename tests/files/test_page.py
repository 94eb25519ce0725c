from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import DictLoader, TemplateAssertionError, UndefinedError
from markupsafe import Markup
from PIL import Image

from fedcondense.files import page as pages
from fedcondense.files.drawing import FIRST, INK, Canvas, draw
from fedcondense.files.page import (
    MINUS,
    PALETTE,
    THIN,
    Page,
    breakable,
    count,
    duration_text,
    percent,
    picture,
    points,
    size_text,
)

FRAME = '{% extends "page.html" %}{% block title %}t{% endblock %}{% block body %}'


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch):
    """A page of the template that a test gives."""

    def make(body: str) -> Page:
        loader = DictLoader({"test.html": FRAME + body + "{% endblock %}"})
        real = pages.PackageLoader
        monkeypatch.setattr(
            pages, "PackageLoader", lambda name: real(name) if "." in name else loader
        )
        return Page("test", "test.html")

    return make


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, relative luminance and contrast ratio."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@given(text=st.text())
def test_a_value_never_opens_an_element(text: str) -> None:
    assert "<" not in str(breakable(text)).replace("<wbr>", "")


def test_values_are_escaped(page) -> None:
    html = page("{{ name }}").render({"name": "<script>alert(1)</script>"}).decode()

    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_no_template_can_mark_a_value_as_already_escaped(page) -> None:
    with pytest.raises(TemplateAssertionError, match="No filter named 'safe'"):
        page("{{ name | safe }}").render({"name": "<script>"})


def test_a_value_that_is_missing_is_an_error(page) -> None:
    with pytest.raises(UndefinedError):
        page("{{ nothing }}").render({})


def test_the_frame_forbids_scripts_and_addresses(page) -> None:
    html = page("").render({}).decode()

    assert "default-src 'none'; img-src data:" in html
    assert "<script" not in html
    assert not re.findall(r"https?:|@import|url\(", html)


def test_a_page_is_written_whole(page, tmp_path: Path) -> None:
    page("{{ percent(0.5) }}").write(tmp_path / "a/page.html", {})

    assert [path.name for path in (tmp_path / "a").iterdir()] == ["page.html"]
    assert '<data value="0.5">' in (tmp_path / "a/page.html").read_text("utf-8")


def test_a_figure_carries_its_exact_value() -> None:
    third = 1 / 3

    assert percent(third) == Markup(f'<data value="{third!r}">33.3{THIN}%</data>')


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0512, "+5.1"), (-0.0512, f"{MINUS}5.1"), (0.0004, "0.0"), (-0.0004, "0.0")],
)
def test_points_are_signed_unless_they_round_to_zero(value: float, text: str) -> None:
    assert f">{text}<" in points(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, f"0{THIN}B"),
        (999, f"999{THIN}B"),
        (999.6, f"1{THIN}kB"),
        (22_150, f"22.1{THIN}kB"),
        (1_500_000, f"1.5{THIN}MB"),
        (2.5e12, f"2500.0{THIN}GB"),
    ],
)
def test_sizes_have_three_digits(value: float, text: str) -> None:
    assert size_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.04, f"0.0{THIN}s"),
        (9.96, f"10{THIN}s"),
        (59.6, f"1{THIN}min 00{THIN}s"),
        (3599.6, f"1{THIN}h 00{THIN}min"),
        (7384, f"2{THIN}h 03{THIN}min"),
    ],
)
def test_durations_are_said_as_people_say_them(value: float, text: str) -> None:
    assert duration_text(value) == text


def test_a_number_of_things_is_whole_unless_it_is_a_mean() -> None:
    assert f">1{THIN}200<" in count(1200)
    assert ">78.3<" in count(78.333)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_holds_its_pixels(channels: int) -> None:
    pixels = np.arange(channels * 256, dtype=np.uint8).reshape(channels, 16, 16)

    html = picture(pixels, 'a "b" <c>')

    data = base64.b64decode(re.search('base64,([^"]*)', html)[1])
    shown = np.asarray(Image.open(io.BytesIO(data)))
    assert np.array_equal(shown if channels == 1 else np.moveaxis(shown, -1, 0).copy(),
                          pixels[0] if channels == 1 else pixels)  # fmt: skip
    assert 'width="64" height="64"' in html  # 4 times 16
    assert "&#34;b&#34; &lt;c&gt;" in html


def test_a_drawing_takes_the_colours_of_the_page_and_prefixes_its_ids() -> None:
    def paint(figure) -> None:
        axes = figure.add_subplot()
        axes.plot([1, 2], [3, 4], "o", color=FIRST)
        axes.set_title("<script>$x^2$ --> 肺", color=INK)

    svg = str(draw(paint, Canvas(200, 100), name="test", description='what "it" is'))

    assert "var(--first)" in svg
    assert FIRST not in svg
    assert "&lt;script&gt;$x^2$ --&gt; 肺" in svg
    assert "http" not in svg
    assert "<script" not in svg
    assert all(found.startswith("test-") for found in re.findall(r' id="([^"]*)', svg))
    assert all(
        found.startswith("test-") for found in re.findall(r"(?:url\(|href=\")#([^\")]*)", svg)
    )
    assert 'aria-label="what &#34;it&#34; is"' in svg


def test_a_drawing_has_the_same_bytes_each_time_and_changes_no_global_setting() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)

    drawings = {
        draw(lambda f: f.add_subplot().plot([1, 2]), Canvas(90, 90), name="a", description="")
        for _ in range(2)
    }

    assert len(drawings) == 1
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("name", ["first", "second", "third", "fourth", "warning"])
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_lines_stand_out_from_the_paper(name: str, mode: str) -> None:
    # WCAG 2.2, 1.4.11: graphical objects need 3:1
    for paper in ("paper", "card"):
        assert contrast(getattr(PALETTE[name], mode), getattr(PALETTE[paper], mode)) >= 3


@pytest.mark.parametrize("name", ["ink", "soft"])
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_text_stands_out_from_everything_behind_it(name: str, mode: str) -> None:
    # WCAG 2.2, 1.4.3: text needs 4.5:1
    for behind in ("paper", "card", "tint", "caution"):
        assert contrast(getattr(PALETTE[name], mode), getattr(PALETTE[behind], mode)) >= 4.5


def test_naming_a_page_loads_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, fedcondense.files.page;"
        "print(sorted({'torch', 'matplotlib', 'flwr'} & set(sys.modules)))"
    )

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"
