from __future__ import annotations

import importlib.metadata
import json
import stat
from pathlib import Path

import pytest

from fedcondense.config.privacy import Unit
from fedcondense.errors import LedgerError
from fedcondense.files.storage import canonical_json
from fedcondense.privacy import chain as chain_module
from fedcondense.privacy.chain import Chain, ChainFile, Entry, Row, State

POPULATION = "kermany"


def charged(sigma: float = 4.0) -> Entry:
    return Entry(
        state=State.CHARGED, mechanism="class-embeddings", sigma=sigma, unit=Unit.PATIENT, round=1
    )


def appended(file: ChainFile, *entries: Entry) -> Chain:
    with file.lock():
        return file.append(file.load(), entries)


def loaded(file: ChainFile) -> Chain:
    with file.lock():
        return file.load()


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "state" / "ledger"


@pytest.fixture
def file(folder) -> ChainFile:
    """A chain of four rows, all of them different."""
    file = ChainFile(folder, POPULATION)
    for sigma in (1.0, 2.0, 3.0):
        appended(file, charged(sigma))
    appended(file, Entry(state=State.DONE, mechanism="class-embeddings", settles=(3,)))
    return file


def rewrite(path: Path, change) -> None:
    """What somebody with an editor and patience would leave: changed, but canonical JSON."""
    value = json.loads(path.read_bytes())
    change(value)
    path.write_bytes(canonical_json(value))


def test_a_chain_comes_back_as_it_was_written(file, folder):
    chain = loaded(file)

    assert [row.seq for row in chain.rows] == [1, 2, 3, 4]
    assert [row.sigma for row in chain.rows] == [1.0, 2.0, 3.0, None]
    assert chain.rows[3].settles == (3,)
    assert chain == loaded(ChainFile(folder, POPULATION))


def test_each_row_carries_the_digest_of_the_row_before(file):
    chain = loaded(file)

    before = [row.previous_row_digest for row in chain.rows]
    assert before[1:] == [row.digest for row in chain.rows[:-1]]
    assert chain.head == chain.rows[-1].digest
    assert len(set(chain.heads)) == 5


def test_a_row_says_when_and_with_which_versions_it_was_written(file, monkeypatch):
    def absent(_: str) -> str:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "version", absent)
    row = appended(file, charged()).rows[-1]

    assert row.time.endswith("+00:00")
    assert row.versions["opacus"] == "absent"
    assert row.versions["fedcondense"]


def test_nobody_else_can_read_the_ledger(file, folder):
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert modes == {f"{POPULATION}.{end}": 0o600 for end in ("json", "anchor.json", "lock")}


def test_an_empty_ledger_has_a_head_of_its_own(tmp_path):
    one, other = (loaded(ChainFile(tmp_path / name, POPULATION)) for name in "ab")

    assert one.rows == ()
    assert one.head != other.head


@pytest.mark.parametrize(
    "values",
    [
        {"state": State.CHARGED, "mechanism": "images"},
        {"state": State.CHARGED, "mechanism": "images", "sigma": 1.0},
        {"state": State.UNBOUNDED, "mechanism": "images", "sigma": 1.0},
        {"state": State.REHEARSAL, "mechanism": "audits", "unit": Unit.IMAGE},
        {"state": State.CHARGED, "mechanism": "images", "sigma": -1.0, "unit": Unit.IMAGE},
        {"state": State.CHARGED, "mechanism": "images", "sigma": float("nan"), "unit": Unit.IMAGE},
        {"state": State.DONE, "mechanism": "images", "price": 1.0},
    ],
)
def test_a_row_that_contradicts_itself_cannot_be_written(values):
    with pytest.raises(ValueError, match="validation error"):
        Entry(**values)


# What is found


def test_every_changed_byte_of_the_ledger_is_found(file, folder):
    path = folder / f"{POPULATION}.json"
    whole = path.read_bytes()

    for at in range(0, len(whole), 13):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(LedgerError):
            loaded(file)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sigma", 40.0),
        ("q", 0.01),
        ("steps", 2),
        ("unit", "image"),
        ("time", "2026-01-01T00:00:00+00:00"),
        ("study", "0" * 64),
        ("versions", {}),
    ],
)
def test_an_edited_row_is_found_though_it_is_well_formed(file, folder, key, value):
    rewrite(folder / f"{POPULATION}.json", lambda ledger: ledger["rows"][1].update({key: value}))

    with pytest.raises(LedgerError, match="its chain breaks at row 3"):
        loaded(file)


def test_an_edited_last_row_is_found_by_the_anchor(file, folder):
    rewrite(folder / f"{POPULATION}.json", lambda ledger: ledger["rows"][3].update(mechanism="a"))

    with pytest.raises(LedgerError, match="not those that the anchor knows"):
        loaded(file)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda rows: rows.insert(1, rows.pop(2)), 2),
        (lambda rows: rows.pop(0), 1),
        (lambda rows: rows.pop(1), 2),
        (lambda rows: rows.insert(2, rows[1]), 3),
    ],
    ids=["reordered", "first removed", "removed", "repeated"],
)
def test_rows_that_were_moved_removed_or_repeated_are_found(file, folder, change, place):
    rewrite(folder / f"{POPULATION}.json", lambda ledger: change(ledger["rows"]))

    with pytest.raises(LedgerError, match=f"its chain breaks at row {place}"):
        loaded(file)


def test_removed_last_rows_are_found_by_the_anchor(file, folder):
    rewrite(folder / f"{POPULATION}.json", lambda ledger: ledger["rows"].pop())

    with pytest.raises(LedgerError, match="it has 3 rows, but there were 4 already"):
        loaded(file)


def test_an_older_copy_of_the_ledger_is_found(file, folder):
    path = folder / f"{POPULATION}.json"
    older = path.read_bytes()
    appended(file, charged())
    path.write_bytes(older)

    with pytest.raises(LedgerError, match="4 rows, but there were 5"):
        loaded(file)


def test_another_history_that_was_written_with_this_program_is_found(file, folder, tmp_path):
    other = ChainFile(tmp_path / "other", POPULATION)
    for _ in range(5):
        appended(other, charged(50.0))
    (tmp_path / "other" / f"{POPULATION}.json").replace(folder / f"{POPULATION}.json")

    with pytest.raises(LedgerError, match="its anchor is that of another ledger"):
        loaded(file)


def test_the_ledger_of_another_population_is_found(file, folder):
    for end in ("json", "anchor.json"):
        (folder / f"{POPULATION}.{end}").rename(folder / f"others.{end}")

    with pytest.raises(LedgerError, match=r"the ledger of 'others' .* that of another population"):
        loaded(ChainFile(folder, "others"))


@pytest.mark.parametrize(
    ("name", "why"), [("json", "its file is lost"), ("anchor.json", "its anchor is lost")]
)
def test_a_lost_file_is_found(file, folder, name, why):
    (folder / f"{POPULATION}.{name}").unlink()

    with pytest.raises(LedgerError, match=why) as error:
        loaded(file)

    assert (error.value.code, error.value.exit_code) == ("FC407", 1)
    assert "restore" in error.value.hint


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"count":0}'])
@pytest.mark.parametrize(
    ("name", "why"), [("json", "its file is damaged"), ("anchor.json", "its anchor is damaged")]
)
def test_a_damaged_file_is_found(file, folder, name, why, data):
    (folder / f"{POPULATION}.{name}").write_bytes(data)

    with pytest.raises(LedgerError, match=why):
        loaded(file)


def test_a_ledger_that_something_else_wrote_again_is_refused(file, folder):
    path = folder / f"{POPULATION}.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()), indent=1))

    with pytest.raises(LedgerError, match="written by something else"):
        loaded(file)


@pytest.mark.parametrize("count", [-1, 5])
def test_an_anchor_that_counts_rows_that_are_not_there_is_refused(file, folder, count):
    rewrite(folder / f"{POPULATION}.anchor.json", lambda anchor: anchor.update(count=count))

    with pytest.raises(LedgerError, match="it has 4 rows"):
        loaded(file)


def test_both_files_from_a_backup_are_shown_by_the_head_of_a_release_record(file, folder):
    copies = {path: path.read_bytes() for path in folder.glob("*.json")}
    released = appended(file, charged()).head
    for path, content in copies.items():
        path.write_bytes(content)

    assert not loaded(file).holds(released)
    assert loaded(file).holds(loaded(file).rows[1].digest)


# What a crash leaves


class Killed(BaseException):
    pass


def kill_at(monkeypatch, call: int) -> None:
    """The process dies instead of its `call`-th atomic write."""
    calls = iter(range(1, 100))
    write = chain_module.write_atomically

    def write_or_die(*args, **settings) -> None:
        if next(calls) == call:
            raise Killed
        write(*args, **settings)

    monkeypatch.setattr(chain_module, "write_atomically", write_or_die)


def test_a_row_whose_writer_died_before_the_anchor_counts(file, monkeypatch):
    with monkeypatch.context() as patch:
        kill_at(patch, 2)
        with pytest.raises(Killed):
            appended(file, charged(7.0))

    assert loaded(file).rows[-1].sigma == 7.0
    assert len(appended(file, charged()).rows) == 6


def test_a_writer_that_died_before_the_ledger_changed_nothing(file, monkeypatch):
    before = loaded(file)
    with monkeypatch.context() as patch:
        kill_at(patch, 1)
        with pytest.raises(Killed):
            appended(file, charged())

    assert loaded(file) == before


@pytest.mark.parametrize(("call", "rows"), [(1, 0), (2, 0), (3, 0), (4, 1)])
def test_a_ledger_whose_making_was_interrupted_can_be_used(folder, monkeypatch, call, rows):
    file = ChainFile(folder, POPULATION)
    with monkeypatch.context() as patch:
        kill_at(patch, call)
        with pytest.raises(Killed):
            appended(file, charged())

    assert len(loaded(file).rows) == rows
    assert len(appended(file, charged()).rows) == rows + 1
    assert len(loaded(file).rows) == rows + 1


def test_a_row_is_read_back_only_with_exactly_its_fields(file):
    values = loaded(file).rows[0].model_dump(mode="json")

    assert Row.model_validate_json(canonical_json(values)).digest == loaded(file).rows[0].digest
    with pytest.raises(ValueError, match="Extra inputs"):
        Row.model_validate_json(canonical_json({**values, "refunded": True}))
