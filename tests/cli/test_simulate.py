"""Transcripts of `fedcondense-simulate`: what an operator sees when something is wrong."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sweep_kit import StandIn
from typer.testing import CliRunner

from fedcondense.cli import simulate as command
from fedcondense.errors import Interrupted, ReleaseRefused
from fedcondense.research import scenario_run, sweep

TINY = """
name = "tiny"
images_per_class = 2
{top}
[image]
size = 16
[network]
width = 8
depth = 2
[distill]
method = "idm"
iterations = 2
[site]
min_patients_per_class = 1
[partition]
sites = 2
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the command on a scenario's text; give exit code and the two error lines."""
    monkeypatch.chdir(tmp_path)
    for name, value in command.ALLOCATOR.items():
        monkeypatch.setenv(name, value)

    def run_it(toml: str, *options: str) -> tuple[int, list[str]]:
        Path("tiny.toml").write_text(toml)
        result = CliRunner().invoke(command.app, ["tiny.toml", *options])
        lines = [line for line in result.stderr.splitlines() if "fedcondense-simulate:" in line]
        return result.exit_code, [line.removeprefix("fedcondense-simulate: ") for line in lines]

    return run_it


def folder(path: Path, classes: tuple[str, ...] = ("COVID", "Normal"), number: int = 3) -> Path:
    rng = np.random.default_rng(0)
    for name in classes:
        (path / name).mkdir(parents=True)
        for i in range(number):
            pixels = rng.integers(0, 255, (20, 20), dtype=np.uint8)
            Image.fromarray(pixels).save(path / name / f"{i}.png")
    return path


def test_all_wrong_keys_are_named_at_once_with_file_and_key(run):
    toml = TINY.format(top='quorom = 2\nseeds = "0"\nimages_per_clas = 0').replace(
        "iterations = 2", "iterations = 0"
    )

    code, lines = run(toml, "--data", "x")

    assert code == 2
    assert lines == [
        "error FC101: tiny.toml: distill.iterations: Input should be greater than or equal to 1; "
        "seeds: Input should be a valid array; quorom: Extra inputs are not permitted; "
        "images_per_clas: Extra inputs are not permitted",
        "hint: every key is described in docs/ref-settings.md",
    ]


def test_no_images_named_is_a_settings_error(run):
    code, lines = run(TINY.format(top=""))

    assert code == 2
    assert lines == [
        "error FC101: tiny.toml: images: no images are named",
        "hint: add --data PATH (class folders, a CSV file or an npz), or an [images] table",
    ]


def test_a_file_that_is_no_toml(run):
    code, lines = run("name = =")

    assert code == 2
    assert lines[0].startswith("error FC101: tiny.toml: not TOML: Invalid value (at line 1")


def test_parts_that_do_not_fit_together_are_named_before_anything_runs(run, tmp_path):
    toml = TINY.format(top="").replace("depth = 2", "depth = 5")

    code, lines = run(toml, "--data", str(folder(tmp_path / "data")))

    assert code == 2
    assert "network.depth: 5 blocks leave less than 2 x 2 pixels of 16" in lines[0]


def test_a_wrong_cell_of_a_sweep_is_named_before_any_is_played(run, tmp_path):
    toml = TINY.format(top="") + "[sweep]\nimages_per_class = [1, 0]\n"

    code, lines = run(toml, "--data", str(folder(tmp_path / "data")))

    assert code == 2
    assert lines[0] == (
        "error FC101: tiny: cell images_per_class = 0: images_per_class: Input should be greater "
        "than or equal to 1"
    )
    assert not Path("runs").exists()


def test_a_sweep_names_each_cell_and_prints_one_row_for_each(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "simulate_sweep", partial(sweep.simulate_sweep, play=StandIn()))
    toml = TINY.format(top="") + "[sweep]\nimages_per_class = [1, 2]\n"

    code, _ = run(toml, "--data", str(folder(tmp_path / "data")), "--out", "out")

    assert code == 0
    assert sorted(p.name[:18] for p in Path("out/cells").iterdir()) == [
        "images_per_class-1",
        "images_per_class-2",
    ]


def test_the_exit_code_of_a_sweep_is_that_of_its_first_failed_cell(run, tmp_path, monkeypatch):
    play = StandIn(fails={2: ReleaseRefused("what is wrong", hint="what to do")})
    monkeypatch.setattr(sweep, "simulate_sweep", partial(sweep.simulate_sweep, play=play))
    toml = TINY.format(top="") + "[sweep]\nimages_per_class = [1, 2]\n"

    code, lines = run(toml, "--data", str(folder(tmp_path / "data")), "--out", "out")

    assert code == 3
    assert lines[0].startswith("error FC401: 1 of 2 cells failed, first images_per_class-2-")
    assert lines[1] == "hint: what to do"


def test_a_sweep_that_fails_says_where_its_report_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    play = StandIn(fails={2: ReleaseRefused("what is wrong", hint="what to do")})
    monkeypatch.setattr(sweep, "simulate_sweep", partial(sweep.simulate_sweep, play=play))
    toml = TINY.format(top="") + "[sweep]\nimages_per_class = [1, 2]\n"
    Path("tiny.toml").write_text(toml)

    data = folder(tmp_path / "data")
    words = ["tiny.toml", "--data", str(data), "--out", "out"]
    result = CliRunner().invoke(command.app, words)

    assert result.exit_code == 3
    assert result.stdout.splitlines()[-1] == "report: out/report.html"


def test_a_quorum_that_can_never_be_met(run, tmp_path):
    code, lines = run(TINY.format(top="quorum = 3"), "--data", str(folder(tmp_path / "data")))

    assert code == 2
    assert lines[0] == "error FC101: tiny: quorum: 3 of 2 sites can never be met"


def test_a_data_path_that_is_not_there(run):
    code, lines = run(TINY.format(top=""), "--data", "nowhere")

    assert code == 1
    assert lines[0].startswith("error FC202: ")
    assert "nowhere" in lines[0]
    assert lines[1].startswith("hint: ")


def test_an_empty_folder(run, tmp_path):
    (tmp_path / "data").mkdir()

    code, lines = run(TINY.format(top=""), "--data", "data")

    assert (code, len(lines)) == (1, 2)
    assert lines[0].startswith("error FC202: ")


def test_images_of_one_class(run, tmp_path):
    code, lines = run(TINY.format(top=""), "--data", str(folder(tmp_path / "d", ("COVID",))))

    assert code == 1
    assert lines == [
        "error FC202: images of one class only, COVID",
        "hint: a classifier needs at least two classes; see docs/ref-data.md for the form",
    ]


def test_one_truncated_image_is_named_and_nothing_is_silently_skipped(run, tmp_path):
    data = folder(tmp_path / "data")
    victim = data / "COVID" / "1.png"
    victim.write_bytes(victim.read_bytes()[:60])

    code, lines = run(TINY.format(top=""), "--data", str(data))

    assert code == 1
    assert lines[0].startswith("error FC202: ")
    assert "1.png" in lines[0]


def test_a_damaged_npz(run, tmp_path):
    (tmp_path / "data.npz").write_bytes(b"PK\x03\x04 not a zip")

    code, lines = run(TINY.format(top=""), "--data", "data.npz")

    assert (code, len(lines)) == (1, 2)
    assert lines[0].startswith("error FC202: data.npz: ")


def test_a_run_directory_with_foreign_files_is_left_alone(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.doc").write_text("years of work")

    code, lines = run(TINY.format(top=""), "--data", str(folder(tmp_path / "data")), "--out", "out")

    assert code == 1
    assert lines == [
        "error FC102: out: holds files that no simulation wrote",
        "hint: name an empty or new directory with --out",
    ]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.doc"]


def test_a_run_directory_that_cannot_be_made(run, tmp_path):
    (tmp_path / "file").write_text("")

    code, lines = run(
        TINY.format(top=""), "--data", str(folder(tmp_path / "data")), "--out", "file/run"
    )

    assert code == 1
    assert lines[0] == "error FC102: file/run: not a directory"


def test_ctrl_c_is_two_lines_and_an_exit_code(run, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(scenario_run, "simulate", interrupted)

    code, lines = run(TINY.format(top=""), "--data", str(folder(tmp_path / "data")))

    assert code == Interrupted.exit_code
    assert lines == [
        "error FC103: stopped by the operator",
        "hint: the same command goes on where it was",
    ]


def test_what_nobody_foresaw_leaves_its_trace_in_a_file(run, tmp_path, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("planted")

    monkeypatch.setattr(scenario_run, "simulate", broken)

    code, lines = run(TINY.format(top=""), "--data", str(folder(tmp_path / "data")))

    trace = Path(lines[1].removeprefix("hint: please report it with "))
    assert (code, lines[0]) == (1, "error FC901: unforeseen RuntimeError")
    assert "RuntimeError: planted" in trace.read_text()
    trace.unlink()


def test_an_unknown_flag_is_a_usage_error(tmp_path):
    result = CliRunner().invoke(command.app, ["x.toml", "--epsilon", "3"])

    assert result.exit_code == 2


def test_help_names_the_two_flags_and_no_other():
    text = CliRunner().invoke(command.app, ["--help"]).stdout

    assert {word for word in text.split() if word.startswith("--")} == {"--data", "--out", "--help"}
