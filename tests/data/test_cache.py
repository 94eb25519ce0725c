from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from fedcondense.data import cache
from fedcondense.data.cache import ABOUT, ARRAYS, LOCK, Entry
from fedcondense.data.listing import ImageFile

PIXELS = {"images": np.arange(12, dtype=np.uint8).reshape(3, 2, 2)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "images"


@pytest.fixture
def files(tmp_path: Path) -> list[ImageFile]:
    found = []
    for row, name in enumerate(("Mustermann-1.png", "Mustermann-2.png"), start=1):
        path = tmp_path / name
        path.write_bytes(b"a film")
        os.utime(path, ns=(1_000_000_000, 1_000_000_000))
        found.append(ImageFile(row, path, name, "COVID", name))
    return found


def _entry(
    folder: Path, files: list[ImageFile], source: str = "films", form: object = "form"
) -> Entry:
    entry = Entry.of(folder, files, source, form)
    assert entry is not None
    return entry


def _entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != LOCK)


def test_what_is_kept_is_read_again(folder, files):
    assert _entry(folder, files).read() is None

    _entry(folder, files).keep(PIXELS)

    found = _entry(folder, files).read()
    assert found is not None
    assert found["images"].tolist() == PIXELS["images"].tolist()
    assert found["images"].flags.writeable


def test_only_the_owner_may_read_it(folder, files):
    _entry(folder, files).keep(PIXELS)

    kept = [folder, *folder.rglob("*")]

    assert {stat.S_IMODE(path.stat().st_mode) for path in kept if path.is_dir()} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept if path.is_file()} == {0o600}


def test_no_name_is_kept(folder, files):
    _entry(folder, files, source="/data/Mustermann").keep(PIXELS)

    for path in folder.rglob("*"):
        assert "Mustermann" not in path.name
        assert path.is_dir() or b"Mustermann" not in path.read_bytes()


@pytest.mark.parametrize("change", ["size", "time", "order", "fewer", "name", "form", "source"])
def test_another_state_of_the_files_is_another_entry(folder, files, tmp_path, change):
    _entry(folder, files).keep(PIXELS)
    source, form = "films", "form"
    match change:
        case "size":
            files[0].path.write_bytes(b"another film")
            os.utime(files[0].path, ns=(1_000_000_000, 1_000_000_000))
        case "time":
            os.utime(files[0].path, ns=(1_000_000_000, 1_000_000_001))
        case "order":
            files.reverse()
        case "fewer":
            files.pop()
        case "name":
            path = files[0].path.rename(tmp_path / "c.png")
            files[0] = ImageFile(1, path, "c.png", "COVID", "c")
        case "form":
            form = "another form"
        case "source":
            source = "other films"

    assert _entry(folder, files, source, form).read() is None


@pytest.mark.parametrize("package", ["fedcondense", "pillow", "pydicom", "format"])
def test_another_version_of_what_decodes_is_another_entry(folder, files, monkeypatch, package):
    _entry(folder, files).keep(PIXELS)
    versions = cache._versions()
    assert package in versions

    monkeypatch.setattr(cache, "_versions", lambda: versions | {package: "another"})

    assert _entry(folder, files).read() is None
    _entry(folder, files, source="other films").keep(PIXELS)
    assert len(_entries(folder)) == 1


def test_a_file_that_is_gone_has_no_entry(folder, files):
    files[0].path.unlink()

    assert Entry.of(folder, files, "films", "form") is None


def test_the_newest_entry_of_a_source_and_form_takes_the_place_of_older_ones(folder, files):
    other = _entry(folder, files, form="another form")
    other.keep(PIXELS)
    _entry(folder, files).keep(PIXELS)

    files.pop()
    _entry(folder, files).keep(PIXELS)

    assert _entries(folder) == sorted([other.digest, _entry(folder, files).digest])


@pytest.mark.parametrize("damaged", [ARRAYS, ABOUT])
@pytest.mark.parametrize("how", ["cut", "altered", "gone", "empty"])
def test_a_damaged_entry_is_passed_over_and_replaced(folder, files, damaged, how):
    entry = _entry(folder, files)
    entry.keep(PIXELS)
    path = folder / entry.digest / damaged
    content = path.read_bytes()
    match how:
        case "cut":
            path.write_bytes(content[:-1])
        case "altered":
            path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
        case "gone":
            path.unlink()
        case "empty":
            path.write_bytes(b"")

    assert entry.read() is None

    entry.keep(PIXELS)
    assert entry.read() is not None
    assert _entries(folder) == [entry.digest]


def test_an_entry_about_nothing_is_passed_over(folder, files):
    entry = _entry(folder, files)
    entry.keep(PIXELS)
    (folder / entry.digest / ABOUT).write_text(json.dumps(["no", "table"]))

    assert entry.read() is None


class Killed(BaseException):
    """Nobody handles it, and nothing is cleaned up after it."""


@pytest.mark.parametrize("write", range(3))
def test_a_kill_while_writing_leaves_nothing_that_is_read_and_the_next_writing_cleans_up(
    folder, files, monkeypatch, write
):
    moves = []

    def move(path: Path, target: Path) -> None:
        moves.append(target)
        if len(moves) > write:
            raise Killed
        os.rename(path, target)  # noqa: PTH104  (the method is what is replaced)

    with monkeypatch.context() as killed:
        killed.setattr(Path, "replace", move)
        killed.setattr(Path, "rename", move)
        killed.setattr(Path, "unlink", lambda *_, **__: None)
        killed.setattr(cache.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(Killed):
            _entry(folder, files).keep(PIXELS)

    assert _entries(folder) != []
    assert _entry(folder, files).read() is None
    _entry(folder, files).keep(PIXELS)
    assert _entries(folder) == [_entry(folder, files).digest]


def test_what_others_put_there_is_left_alone(folder, files):
    folder.mkdir(parents=True)
    (folder / "notes.txt").touch()
    (folder / "films").mkdir()

    _entry(folder, files).keep(PIXELS)

    assert {"notes.txt", "films"} < set(_entries(folder))


def test_a_cache_that_cannot_be_written_is_told_without_a_path_and_is_no_error(
    tmp_path, files, caplog
):
    (tmp_path / "Mustermann").touch()
    entry = _entry(tmp_path / "Mustermann", files)

    entry.keep(PIXELS)

    assert caplog.messages == ["the images read are not kept: File exists"]
    assert entry.read() is None
