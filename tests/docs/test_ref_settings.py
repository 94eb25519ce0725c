from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path

from fedcondense.config.loading import parse_settings
from fedcondense.config.scenario import Scenario

DOCS = Path(__file__).parents[2] / "docs"


def generated() -> str:
    return runpy.run_path(str(DOCS / "snippets" / "make_ref_settings.py"))["page"]()


def test_the_page_is_what_the_models_say():
    page = (DOCS / "ref-settings.md").read_text(encoding="utf-8")

    assert page == generated(), (
        "run: python docs/snippets/make_ref_settings.py > docs/ref-settings.md"
    )


def test_every_key_of_a_scenario_is_described():
    page = generated()

    keys = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|.* (\S[^|]*) \|$", page, re.MULTILINE)

    assert {"classes", "images_per_class", "image_rate", "alpha", "study_digest"} <= {
        k[0] for k in keys
    }
    assert all(kind and default and meaning for _, kind, default, meaning in keys)


def test_the_example_is_a_scenario():
    (example,) = re.findall(r"```toml\n(.*?)```", generated(), re.DOTALL)

    assert parse_settings(Scenario, tomllib.loads(example), "example").name == "smallest"
