from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcondense.files import storage
from fedcondense.files.storage import (
    canonical_json,
    read_arrays,
    read_json,
    remove_unfinished,
    sha256,
    write_arrays,
    write_atomically,
    write_exclusively,
    write_json,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)  # fmt: skip


class Crash(BaseException):
    """What a test raises where a machine would stop."""


def crash(*args, **options):
    raise Crash


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_written_with_the_folders_above_it(tmp_path):
    path = tmp_path / "a" / "b" / "file"

    write_atomically(path, b"new")

    assert path.read_bytes() == b"new"
    assert names_in(path.parent) == {"file"}


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"the old and longer one")

    write_atomically(path, b"new")

    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("write", [write_atomically, write_exclusively])
@pytest.mark.parametrize("moment", ["write", "sync", "move"])
def test_a_crash_leaves_what_was_there_and_nothing_else(tmp_path, monkeypatch, write, moment):
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"old")
    monkeypatch.setattr(*{
        "write": (storage.os, "fdopen"),
        "sync": (storage.os, "fsync"),
        "move": (Path, "replace") if write is write_atomically else (storage.os, "link"),
    }[moment], crash)  # fmt: skip

    for path in (old, new):
        with pytest.raises(Crash):
            write(path, b"new")

    assert names_in(tmp_path) == {"old"}
    assert old.read_bytes() == b"old"


def test_bytes_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    order, sync, replace = [], os.fsync, Path.replace
    monkeypatch.setattr(storage.os, "fsync", lambda fd: (order.append("sync"), sync(fd)))
    monkeypatch.setattr(Path, "replace", lambda a, b: (order.append("move"), replace(a, b)))

    write_atomically(tmp_path / "file", b"new")

    assert order == ["sync", "move", "sync"]  # of the file, then of its folder


def test_an_existing_file_is_never_written_over_exclusively(tmp_path):
    path = tmp_path / "file"
    write_exclusively(path, b"first")

    with pytest.raises(FileExistsError):
        write_exclusively(path, b"second")

    assert path.read_bytes() == b"first"
    assert names_in(tmp_path) == {"file"}


def test_what_is_written_exclusively_is_the_owners_alone(tmp_path):
    write_exclusively(tmp_path / "key", b"secret")

    assert mode_of(tmp_path / "key") == 0o600


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_file_has_the_mode_asked_for(tmp_path, mode):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o666)

    write_atomically(path, b"new", mode=mode)

    assert mode_of(path) == mode


def test_canonical_json_of_a_value_computed_by_hand():
    value = {"b": [1, 2.5, True, None], "a": {"ä": "\n", "Z": ""}}

    assert canonical_json(value) == (rb'{"a":{"Z":"","\u00e4":"\n"},"b":[1,2.5,true,null]}')


@given(json_values)
def test_canonical_json_keeps_the_value_and_is_its_own_canonical_form(value):
    data = canonical_json(value)

    assert json.loads(data) == value
    assert canonical_json(json.loads(data)) == data
    assert data.isascii()


@given(st.dictionaries(st.text(), json_values), st.randoms(use_true_random=False))
def test_equal_values_give_equal_bytes(value, random):
    keys = list(value)
    random.shuffle(keys)

    assert canonical_json({key: value[key] for key in keys}) == canonical_json(value)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_has_no_json(tmp_path, number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "file.json", {"a": [number]})

    assert names_in(tmp_path) == set()


def test_json_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "file.json"

    write_json(path, {"b": [1, "ä"], "a": None})

    assert read_json(path) == {"a": None, "b": [1, "ä"]}
    assert path.read_bytes() == rb'{"a":null,"b":[1,"\u00e4"]}'


def test_arrays_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "set.safetensors"
    arrays = {
        "pixels": np.linspace(-4, 4, 24, dtype=np.float32).reshape(2, 1, 3, 4),
        "labels": np.array([0, 255], np.uint8),
        "turned": np.arange(6).reshape(2, 3).T,  # its bytes are not in its own order
        "number": np.array(7),
        "empty": np.empty((0, 3), np.float64),
    }

    write_arrays(path, arrays)
    again = read_arrays(path)

    assert set(again) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array, strict=True)


def test_equal_arrays_give_equal_bytes(tmp_path):
    arrays = {"b": np.arange(3), "a": np.zeros((2, 2), np.float32)}

    write_arrays(tmp_path / "one", arrays)
    write_arrays(tmp_path / "two", dict(reversed(arrays.items())))

    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_sha256_is_that_of_the_standard():
    # FIPS 180-4, example "abc"
    assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    folder = tmp_path / "sealed"
    folder.mkdir()
    names = [".a.sealed.0123456789ab.tmp", "a.sealed", ".notes.tmp"]
    for name in names:
        (folder / name).touch()
        os.utime(folder / name, (0, 0))
    (folder / ".b.sealed.0123456789ab.tmp").touch()  # its writer may live

    remove_unfinished(tmp_path)

    left = sorted(path.name for path in folder.iterdir())
    assert left == [".b.sealed.0123456789ab.tmp", ".notes.tmp", "a.sealed"]
