"""Transcripts of `fedcondense-site check`: every line, and the exit code."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from joined_kit import Hospital, hospital
from PIL import Image
from typer.testing import CliRunner

from fedcondense.cli import site as command
from fedcondense.flower import hops
from fedcondense.site import doctor
from fedcondense.site.doctor import Finding, Verdict

ODD = os.fsdecode(b"M\xfcller.png")  # in Latin-1, as old archives name their files


def film(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (16, 16), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def lakeside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hospital:
    """A hospital whose images, machine and way to the server are in order."""
    monkeypatch.setattr(doctor, "available_memory", lambda: 8e9)
    monkeypatch.setattr(doctor, "others_here", lambda: 0)
    found = Finding("name", Verdict.OK, "localhost is 127.0.0.1")
    monkeypatch.setattr(hops, "check_hops", lambda site: iter([found]))
    site = hospital(tmp_path / "lakeside")
    for number in range(12):
        for name in site.study.classes:
            film(site.folder / "images" / name / f"{number}.png", len(name) * 100 + number)
    release = {"min_patients_per_class": 1}
    site.change(images={"kind": "folder", "path": "images"}, release=release)
    return site


def check(site: Hospital) -> tuple[int, list[str]]:
    ran = CliRunner().invoke(command.app, ["check", str(site.settings)])
    assert "error" not in ran.stderr, ran.stderr
    return ran.exit_code, ran.stdout.splitlines()


def test_a_site_in_order_is_exit_code_0_and_every_line_begins_with_ok(lakeside: Hospital) -> None:
    code, lines = check(lakeside)

    assert (code, [line for line in lines if line.startswith("failed")]) == (0, [])
    assert "ok      settings: site lakeside" in lines
    assert "ok      images: 24 of 24 images can be used, of 24 groups" in lines
    assert lines[-1] == "ok      name: localhost is 127.0.0.1"
    assert any(line.startswith("ok      budget: none is asked for") for line in lines)


def test_whatever_failed_is_exit_code_1_with_its_code_and_what_to_do(lakeside: Hospital) -> None:
    lakeside.state.chmod(0o750)
    (lakeside.state / "keys" / "node.key").unlink()

    code, lines = check(lakeside)

    at = lines.index(f"failed  state: {lakeside.state}: others can look into it (FC101)")
    assert code == 1
    assert lines[at + 1] == f"        chmod 700 {lakeside.state}"
    assert any(line.startswith("failed  node key: ") and "(FC403)" in line for line in lines)


def test_images_that_would_be_skipped_are_named_by_their_files(lakeside: Hospital) -> None:
    name = lakeside.study.classes[0]
    folder = lakeside.folder / "images" / name
    (folder / "gone.dcm").symlink_to(lakeside.folder / "archive" / "gone.dcm")

    code, lines = check(lakeside)

    assert code == 1
    assert f"failed  image: {name}/gone.dcm: a link to nothing" in lines


def test_images_deeper_than_is_read_are_named_by_their_folder(lakeside: Hospital) -> None:
    name = lakeside.study.classes[0]
    film(lakeside.folder / "images" / name / "patient-7" / "study-1" / "1.png", 7)

    code, lines = check(lakeside)

    assert code == 1
    assert (
        f"failed  images: {name}/patient-7/study-1: images in a folder that is not read (FC202)"
        in lines
    )


def test_a_misspelt_class_and_a_missing_folder_are_named(lakeside: Hospital) -> None:
    film(lakeside.folder / "images" / "Covd" / "1.png", 9)

    misspelt = check(lakeside)
    lakeside.change(images={"kind": "folder", "path": "imges"})
    missing = check(lakeside)

    text = "note    class: the folder Covd holds images, and no class of the study is called so"
    assert misspelt[0] == 0
    assert text in misspelt[1]
    assert missing[0] == 1
    path = lakeside.folder / "imges"
    assert f"failed  images: {path}: no such file or directory (FC202)" in missing[1]


def test_a_file_name_that_is_no_utf8_is_checked_like_any_other(lakeside: Hospital) -> None:
    name = lakeside.study.classes[0]
    film(lakeside.folder / "images" / name / ODD, 11)

    code, lines = check(lakeside)

    assert code == 0
    assert "ok      images: 25 of 25 images can be used, of 25 groups" in lines


def test_wrong_settings_are_the_only_line_and_exit_code(lakeside: Hospital) -> None:
    lakeside.change(seed=-1)

    ran = CliRunner().invoke(command.app, ["check", str(lakeside.settings)])

    assert ran.exit_code == 2
    assert ran.stdout.startswith("failed  settings: SITE.toml: seed: ")
    assert ran.stdout.splitlines()[0].endswith("(FC101)")
