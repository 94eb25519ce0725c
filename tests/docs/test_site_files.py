"""What lies ready for a hospital: example settings, its service unit, the page that leads it."""

from __future__ import annotations

import re
from pathlib import Path

from fedcondense.config.site import load_site
from fedcondense.flower.hops import _HOPS
from fedcondense.site.site_toml import site_toml

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "sites" / "example"
PAGE = (ROOT / "docs" / "how-to-join-a-study.md").read_text(encoding="utf-8")


def test_the_example_is_what_init_writes() -> None:
    text = (EXAMPLE / "site.toml").read_text(encoding="utf-8")

    assert text == site_toml("lakeside", seed=20261121)
    assert load_site(EXAMPLE / "site.toml").name == "lakeside"


def test_every_table_that_is_commented_out_could_be_put_in(tmp_path: Path) -> None:
    text = site_toml("lakeside", seed=1)
    commented = re.compile(r"^# (\[\w+\]|\w+ = .*)$", re.MULTILINE)

    (tmp_path / "SITE.toml").write_text(commented.sub(r"\1", text))

    site = load_site(tmp_path / "SITE.toml")
    assert len(commented.findall(text)) >= 8
    assert site.ledger is not None
    assert site.declared is not None
    assert site.release.needs_approval


def test_the_page_explains_every_hop_of_check() -> None:
    for hop in _HOPS:
        assert f"| {hop} | " in PAGE
