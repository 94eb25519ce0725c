"""The ledger's file: rows that each carry the digest of the row before, and an anchor beside it.

`<population>.json` holds the rows, `<population>.anchor.json` how many there were last and the
digest of the last one. A row that was changed, moved or taken out breaks the chain; a file that was
lost, shortened or replaced by an older copy contradicts the anchor. Not noticed here is an older
copy of **both** files: the digest of the last row, which every release record carries, shows that
(`Chain.holds`). Nor is a whole chain written anew together with its anchor: the digests keep out
accidents and quiet edits, not somebody who writes a second history with the site's own rights.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import fedcondense
from fedcondense.config.privacy import Unit
from fedcondense.errors import LedgerError
from fedcondense.files.lock import locked
from fedcondense.files.storage import canonical_json, write_atomically

VERSION: Final = 1


class State(StrEnum):
    """What a row says of an access to patient data."""

    CHARGED = "charged"  # paid for, whether or not it was finished
    UNBOUNDED = "unbounded"  # without noise: no figure bounds these patients' exposure any more
    DONE = "done"  # the rows that it settles were used to the end; costs nothing
    REHEARSAL = "rehearsal"  # its result stays at the site; costs nothing


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Entry(_Strict):
    """What is written down of an access; `Row` adds its place in the chain.

    `sigma`, `q` and `steps` are those of the mechanism. `k_max` is the most images that a patient
    gives, `clip` the bound on a unit's share. `study` is the study's digest. `settles` are the
    rows that a `done` row refers to, and `data_digest` that of the images which were read for them.
    """

    state: State
    mechanism: str
    sigma: float | None = Field(None, gt=0)
    q: float = Field(1.0, gt=0, le=1)
    steps: int = Field(1, ge=1)
    unit: Unit | None = None
    k_max: int | None = Field(None, ge=1)
    clip: float | None = Field(None, gt=0)
    mode: str = ""
    study: str = ""
    round: int = Field(0, ge=0)
    data_digest: str = ""
    settles: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _says_what_it_costs(self) -> Entry:
        charged = self.state is State.CHARGED
        if charged != (self.sigma is not None) or charged != (self.unit is not None):
            raise ValueError("a charged row, and no other, has sigma and unit")
        return self


class Row(Entry):
    """An entry at its place: `seq` counts from 1, `time` is UTC, `versions` by package."""

    seq: int = Field(ge=1)
    time: str
    versions: dict[str, str]
    previous_row_digest: str

    @property
    def digest(self) -> str:
        """SHA-256 of the row as canonical JSON."""
        return _digest(self.model_dump(mode="json"))


class _File(_Strict):
    version: Literal[1]
    population: str
    identity: str
    rows: tuple[Row, ...]


class _Anchor(_Strict):
    version: Literal[1]
    identity: str
    count: int
    head: str


@dataclass(frozen=True)
class Chain:
    """All rows of one population; `identity` is random, so that no two ledgers are alike."""

    population: str
    identity: str
    rows: tuple[Row, ...] = ()

    @property
    def heads(self) -> tuple[str, ...]:
        """The digest that stood last before the first row, and after every row."""
        start = {"identity": self.identity, "population": self.population, "version": VERSION}
        return _digest(start), *(row.digest for row in self.rows)

    @property
    def head(self) -> str:
        """Digest of the last row; of the ledger's own name where there is none."""
        return self.heads[-1]

    def holds(self, head: str) -> bool:
        """Whether the chain ever ended in `head`: false where it was set back behind it."""
        return head in self.heads

    def extended(self, entries: Sequence[Entry]) -> Chain:
        """The chain with these entries as its last rows."""
        rows, head = list(self.rows), self.head
        place = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "versions": _versions()}
        for entry in entries:
            values = {**dict(entry), **place, "seq": len(rows) + 1, "previous_row_digest": head}
            rows.append(Row.model_validate(values))
            head = rows[-1].digest
        return Chain(self.population, self.identity, tuple(rows))

    def verify(self) -> None:
        """Follow the chain from its start.

        Raises:
            LedgerError: a row was changed, moved, added or taken out.
        """
        for place, (row, before) in enumerate(zip(self.rows, self.heads, strict=False), start=1):
            if row.seq != place or row.previous_row_digest != before:
                raise _broken(self.population, f"its chain breaks at row {place}")


class ChainFile:
    """The two files of a population's chain, and the lock under which they are read and written."""

    def __init__(self, folder: Path, population: str) -> None:
        self._folder = folder
        self._population = population
        self._path = folder / f"{population}.json"
        self._anchor_path = folder / f"{population}.anchor.json"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """One reader or writer at a time, thread or process."""
        _make_durably(self._folder)
        with locked(self._folder / f"{self._population}.lock"):
            yield

    def load(self) -> Chain:
        """The chain, followed from its start and held against the anchor; under the lock.

        A chain that goes on beyond the anchor is one whose writer was killed between the two files:
        what it charged stays charged.

        Raises:
            LedgerError: the chain was lost, altered or set back.
        """
        data, anchored = _content(self._path), _content(self._anchor_path)
        if data is None:
            if anchored is not None:
                raise self._broken("its file is lost, its anchor is there")
            return Chain(self._population, secrets.token_hex(16))
        chain = self._parsed(data)
        chain.verify()
        self._hold_against(chain, anchored)
        return chain

    def append(self, chain: Chain, entries: Sequence[Entry]) -> Chain:
        """Write `entries` behind `chain`, just loaded, durably; under the same lock."""
        longer = chain.extended(entries)
        if not self._anchor_path.exists():  # before the first row: a row without anchor is refused
            self._write(chain)
            self._write_anchor(chain)
        self._write(longer)
        self._write_anchor(longer)
        return longer

    def _parsed(self, data: bytes) -> Chain:
        try:
            file = _File.model_validate_json(data)
        except ValidationError as error:
            raise self._broken("its file is damaged") from error
        if canonical_json(file.model_dump(mode="json")) != data:
            raise self._broken("its file was written by something else")
        if file.population != self._population:
            raise self._broken("its file is that of another population")
        return Chain(file.population, file.identity, file.rows)

    def _hold_against(self, chain: Chain, anchored: bytes | None) -> None:
        if anchored is None:
            if chain.rows:
                raise self._broken("its anchor is lost")
            return  # killed while it was made; nothing had been charged
        try:
            anchor = _Anchor.model_validate_json(anchored)
        except ValidationError as error:
            raise self._broken("its anchor is damaged") from error
        if anchor.identity != chain.identity:
            raise self._broken("its anchor is that of another ledger")
        if not 0 <= anchor.count <= len(chain.rows):
            raise self._broken(
                f"it has {len(chain.rows)} rows, but there were {anchor.count} already"
            )
        if chain.heads[anchor.count] != anchor.head:
            raise self._broken("its rows are not those that the anchor knows")

    def _write(self, chain: Chain) -> None:
        file = _File(
            version=VERSION,
            population=chain.population,
            identity=chain.identity,
            rows=chain.rows,
        )
        write_atomically(self._path, canonical_json(file.model_dump(mode="json")), mode=0o600)

    def _write_anchor(self, chain: Chain) -> None:
        values = {
            "count": len(chain.rows),
            "head": chain.head,
            "identity": chain.identity,
            "version": VERSION,
        }
        write_atomically(self._anchor_path, canonical_json(values), mode=0o600)

    def _broken(self, why: str) -> LedgerError:
        return _broken(self._population, why)


def _broken(population: str, why: str) -> LedgerError:
    return LedgerError(
        f"the ledger of '{population}' cannot be trusted: {why}",
        hint="restore both of its files as they were last; without them these patients' data "
        "cannot be charged any more",
    )


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(b"fedcondense/ledger/v1\0" + canonical_json(value)).hexdigest()


def _versions() -> dict[str, str]:
    return {"fedcondense": fedcondense.__version__, "opacus": _version_of("opacus")}


def _version_of(package: str) -> str:
    """Without loading it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _make_durably(folder: Path) -> None:
    """A folder whose own entry survives a loss of power, too: else all charges could vanish."""
    if folder.exists():
        return
    _make_durably(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    descriptor = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
