"""The global synthetic sets that the server sent, one a round, as this site verified them.

They are for two uses: a further round begins with one, and a hospital may train on it beside its
own images. `STATE/runs/<study digest>/round-001/global/` holds the arrays and the signed result.
"""

from __future__ import annotations

from pathlib import Path

from fedcondense.config.site import SiteConfig
from fedcondense.config.study import Study
from fedcondense.exchange.round_result import Expected, Given, RoundResult, read_given
from fedcondense.files.storage import read_arrays, write_arrays, write_atomically
from fedcondense.site.state import RoundState

SET = "set.safetensors"
ARRAYS = ("images", "labels", "soft")  # in the order in which they travel


def keep_global(state: Path, given: Given) -> Path:
    """Keep a verified set; the folder that it is in. The newest one of a round stands."""
    folder = _folder(state, given.result.study_digest, given.result.round)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_arrays(folder / SET, given.shared.stored())
    write_atomically(folder / "result.json", given.signed)
    return folder


def keep_result(state: Path, result: RoundResult, signed: bytes) -> None:
    """Keep a verified result alone, in the place of all that an earlier run gave."""
    folder = _folder(state, result.study_digest, result.round)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / SET).unlink(missing_ok=True)
    write_atomically(folder / "result.json", signed)


def kept_global(state: Path, expected: Expected) -> Given | None:
    """The set that is expected, verified once more; None where the server never sent it.

    Raises:
        DescriptionRejected: what is kept was changed.
    """
    folder = _folder(state, expected.study.digest, expected.round)
    if not (folder / "result.json").exists() or not (folder / SET).exists():
        return None
    arrays = read_arrays(folder / SET)
    data = b"".join(arrays[name].tobytes() for name in ARRAYS if name in arrays)
    return read_given((folder / "result.json").read_bytes(), data, expected)


def newest_round(site: SiteConfig, study: Study) -> int:
    """The round that this site can condense: the one after the newest global set that it has."""
    rounds = range(study.rounds, 1, -1)
    folders = {n: _folder(site.state, study.digest, n - 1) for n in rounds}
    return next((n for n, at in folders.items() if (at / "result.json").exists()), 1)


def _folder(state: Path, study_digest: str, round: int) -> Path:
    return RoundState(state, study_digest, round).folder / "global"
