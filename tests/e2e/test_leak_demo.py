"""The leak demo in real processes, with fewer and smaller phantoms than its own file asks for."""

from __future__ import annotations

import html
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from simulate_kit import report, simulate

from fedcondense.files.storage import read_arrays, read_json

pytestmark = pytest.mark.e2e

DEMO = Path(__file__).parents[2] / "simulations/leak_demo.toml"
SMALLER = {
    "images": {"images_per_class": 420},
    "image": {"size": 24},
    "network": {"width": 8, "depth": 2},
    "distill": {"iterations": 60},
    "evaluation": {"networks": 1, "steps": 10, "resamples": 100},
    "partition": {"sites": 1},
}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("leak")
    values = tomllib.loads(DEMO.read_text(encoding="utf-8"))
    smaller = {table: values[table] | changes for table, changes in SMALLER.items()}
    (folder / "leak.toml").write_text(tomli_w.dumps(values | smaller), encoding="utf-8")

    result = simulate(folder / "leak.toml", folder / "run")

    assert result.returncode == 3, result.stderr
    return folder / "run"


def state_of(run: Path, start: str) -> Path:
    [page] = run.glob(f"cells/{start}-*/seed-0/sites/site-1/runs/*/round-001/preview.html")
    return page.parent


def text_of(state: Path) -> str:
    return html.unescape((state / "preview.html").read_text())


def test_the_gate_passes_the_cell_from_noise_and_refuses_the_one_from_real_images(played):
    noise, real = (
        read_json(state_of(played, s) / "release-record.json") for s in ("noise", "real")
    )

    assert noise["verdict"] == "passed"
    assert real["refusals"] == ["real-start", "audit-memorisation"]
    assert "This set may leave." in text_of(state_of(played, "noise"))
    assert "This set must not leave." in text_of(state_of(played, "real"))
    cells = {cell["name"].split("-")[0]: cell["state"] for cell in report(played)["cells"]}
    assert cells == {"noise": "done", "real": "failed"}


def test_the_page_of_the_refused_cell_shows_the_patient_that_an_image_began_as(played):
    state = state_of(played, "real")
    began = read_arrays(state / "synthetic.safetensors")["started_from"]
    shown = read_arrays(state / "likenesses.safetensors")
    grey = np.rint(np.clip((began * 0.25 + 0.5) * 255, 0, 255)).astype(np.uint8)
    starts = {image.tobytes() for image in grey}

    pairs = [shown[f"training.{number}"] for number in range(len(shown["labels"]))]

    assert text_of(state).count("stays at this hospital") >= len(pairs) > 0
    assert all(picture.tobytes() in starts for picture in pairs)
