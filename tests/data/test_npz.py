from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcondense.data import npz
from fedcondense.data.npz import npz_bytes, read_npz
from fedcondense.errors import DataError


def _message(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_npz(path, required=("a",), optional=("b",))
    assert caught.value.code == "FC202"
    assert caught.value.hint
    return caught.value.message


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@given(rows=st.integers(0, 5), text=st.lists(st.text(max_size=5), max_size=4))
def test_what_was_written_is_read(tmp_path_factory, rows, text):
    path = tmp_path_factory.mktemp("npz") / "x.npz"
    written = {"a": np.ones((rows, 3), np.uint8), "b": np.array(text, dtype=np.str_)}
    path.write_bytes(npz_bytes(written))

    read = read_npz(path, required=("a",), optional=("b",))

    assert {k: v.tolist() for k, v in read.items()} == {k: v.tolist() for k, v in written.items()}


def test_numpy_reads_what_was_written_and_the_reverse(tmp_path):
    array = np.asfortranarray(np.arange(12, dtype=np.int16).reshape(3, 4))
    (tmp_path / "ours.npz").write_bytes(npz_bytes({"a": array}))
    np.savez(tmp_path / "theirs.npz", a=array)

    theirs = np.load(tmp_path / "ours.npz")["a"]
    ours = read_npz(tmp_path / "theirs.npz", required=("a",))["a"]

    assert theirs.tolist() == ours.tolist() == array.tolist()


def test_equal_arrays_give_equal_bytes():
    assert npz_bytes({"a": np.arange(5)}) == npz_bytes({"a": np.arange(5)})


def test_arrays_that_nobody_asked_for_are_not_read(tmp_path):
    bad = np.array([{}], dtype=object)
    path = _zipped(tmp_path / "x.npz", {"a.npy": _npy(np.arange(3)), "other.npy": _npy(bad)})

    assert list(read_npz(path, required=("a",))) == ["a"]


def test_object_arrays_are_refused_unpickled(tmp_path):
    path = _zipped(tmp_path / "x.npz", {"a.npy": _npy(np.array([{1: 2}], dtype=object))})

    assert _message(path) == "x.npz: a: holds Python objects, which are never unpickled"


def test_an_archive_that_would_inflate_past_the_limit_is_refused(tmp_path, monkeypatch):
    path = _zipped(tmp_path / "x.npz", {"a.npy": _npy(np.zeros(10_000, np.uint8))})
    assert path.stat().st_size < 1_000
    monkeypatch.setattr(npz, "LARGEST_INFLATED", 5_000)

    assert _message(path) == "x.npz: would inflate to 10128 bytes, more than 5000"


def test_the_limit_is_four_gibibytes():
    assert npz.LARGEST_INFLATED == 4 * 2**30


def test_a_header_that_promises_more_than_the_entry_holds_is_refused(tmp_path):
    header = _npy(np.zeros(1_000, np.uint8))[:128]
    path = _zipped(tmp_path / "x.npz", {"a.npy": header + b"few"})

    assert _message(path) == "x.npz: a: shape (1000,) of uint8 does not match its 131 bytes"


def test_a_negative_shape_is_refused(tmp_path):
    content = _npy(np.zeros((1, 1), np.uint8)).replace(b"(1, 1)", b"(-1,-1)"[:7])
    path = _zipped(tmp_path / "x.npz", {"a.npy": content})

    assert "x.npz: a: " in _message(path)


def test_a_missing_array_is_named(tmp_path):
    path = _zipped(tmp_path / "x.npz", {"b.npy": _npy(np.arange(3))})

    assert _message(path) == "x.npz: no array a"


def test_an_array_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", _npy(np.arange(3)))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.npy", _npy(np.arange(4)))

    assert _message(path) == "x.npz: an array stands twice"


def test_an_entry_that_is_no_array_is_refused(tmp_path):
    path = _zipped(tmp_path / "x.npz", {"a.npy": b"something else"})

    assert _message(path).startswith("x.npz: a: not an npy array: ")


def test_what_is_no_zip_is_refused(tmp_path):
    (tmp_path / "x.npz").write_text("hello")

    assert _message(tmp_path / "x.npz") == "x.npz: not an npz archive: file is not a zip file"


def test_a_missing_path_is_refused(tmp_path):
    assert _message(tmp_path / "x.npz") == "x.npz: no such file or directory"


def test_a_folder_is_refused(tmp_path):
    (tmp_path / "x.npz").mkdir()

    assert _message(tmp_path / "x.npz") == "x.npz: is a directory"


@given(seed=st.integers(0, 2**31))
def test_a_damaged_archive_is_refused_or_read_whole(tmp_path_factory, seed):
    rng = np.random.default_rng(seed)
    path = tmp_path_factory.mktemp("npz") / "x.npz"
    content = bytearray(npz_bytes({"a": np.arange(500, dtype=np.int16)}))
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    path.write_bytes(content)

    outcome = _outcome(path)

    # a bit may carry no meaning, such as of the date
    assert outcome in ("refused", "read whole")


def _outcome(path: Path) -> str:
    try:
        read = read_npz(path, required=("a",))
    except DataError:
        return "refused"
    return "read whole" if read["a"].tolist() == list(range(500)) else "read wrongly"
