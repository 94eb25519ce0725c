"""Verify again, open, refuse by schema and duplicates; a step of the conclusion in the parent.

The ServerApp is not trusted: everything is verified again from the stored bytes. Nothing is opened
below the quorum, and nothing is dropped silently: `verdicts.json` names what became of each site.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from fedcondense.config.study import LARGEST_CONTRIBUTION
from fedcondense.errors import ContributionRejected, KeyFileError, QuorumMissed
from fedcondense.exchange.contribution import SITE_NAME, Payload
from fedcondense.exchange.keys import OpeningKey, signing_fingerprint
from fedcondense.exchange.rejection import Reason, demand
from fedcondense.exchange.sealing import Expectation, Opened, open_sealed, verify
from fedcondense.files.storage import read_json, sha256, write_arrays, write_json
from fedcondense.server.run_directory import RunDirectory

Verdicts = dict[str, dict[str, Any]]


def open_round(run: RunDirectory, round: int, key: OpeningKey) -> list[Opened]:
    """The valid contributions of a round, by name of site.

    Raises:
        KeyFileError: `key` is not the run's opening key.
        QuorumMissed: fewer valid contributions than the study's quorum.
        RunDirectoryError: a file of the run is missing or changed.
    """
    expected = run.expectation(round)
    if key.recipient.raw.hex() != expected.description.recipient:
        raise KeyFileError(
            "the opening key is of another run", hint="name the key that the run began with"
        )
    quorum = run.study().quorum
    paths = sorted(run.sealed_folder(round).glob("[!.]*.sealed"))
    _demand_quorum(len(paths), quorum, "stored")
    verdicts: Verdicts = {site: {"verdict": "missing"} for site in expected.enrolled}
    sealed = [path for path in paths if _is_verified(path, expected, verdicts)]
    _write_verdicts(run, round, verdicts)
    _demand_quorum(len(sealed), quorum, "verified")
    opened = _open_all(sealed, expected, key, verdicts, _earlier_sets(run, round))
    _write_verdicts(run, round, verdicts)
    _demand_quorum(len(opened), quorum, "valid")
    for contribution in opened:
        _write_opened(run.opened(round, contribution.site), contribution)
    return opened


def discard_opened(run: RunDirectory, round: int) -> None:
    """Delete the opened arrays of a round; on journaling file systems this is best effort."""
    shutil.rmtree(run.opened_folder(round), ignore_errors=True)


def set_digest(payload: Payload) -> str:
    """SHA-256 over the sorted digests of the images: equal for a set in another order or class."""
    step = len(payload.pixels) // payload.shape[0]
    pixels = memoryview(payload.pixels)
    images = (pixels[first : first + step] for first in range(0, len(pixels), step))
    return sha256("".join(sorted(sha256(bytes(image)) for image in images)).encode("ascii"))


def _demand_quorum(found: int, quorum: int, kind: str) -> None:
    if found < quorum:
        raise QuorumMissed(
            f"{found} {kind} contributions, the study's quorum is {quorum}",
            hint="the same command asks the others again; verdicts.json says why one was refused",
        )


def _is_verified(path: Path, expected: Expectation, verdicts: Verdicts) -> bool:
    site = path.stem if SITE_NAME.fullmatch(path.stem) else "?"
    sealed: dict[str, Any] = {}
    try:
        blob = _read_bounded(path)
        sealed = {"sealed_sha256": sha256(blob), "sealed_bytes": len(blob)}
        demand(verify(blob, expected).site == path.stem, Reason.SITE)
    except ContributionRejected as rejected:
        verdicts[site] = {"verdict": "rejected", "reason": rejected.reason, **sealed}
        return False
    verdicts[site] = {"verdict": "verified", **sealed}
    return True


def _open_all(
    sealed: list[Path],
    expected: Expectation,
    key: OpeningKey,
    verdicts: Verdicts,
    earlier: dict[str, str],
) -> list[Opened]:
    """Of equal sets the first by name stands: the union holds the same images whichever it is."""
    opened: list[Opened] = []
    seen = dict(earlier)
    for path in sealed:
        verdict = verdicts[path.stem]
        try:
            contribution = open_sealed(_read_bounded(path), expected, key)
            digest = set_digest(contribution.payload)
            owner = seen.setdefault(digest, contribution.site)
            demand(owner == contribution.site, Reason.DUPLICATE)
        except ContributionRejected as rejected:
            verdict |= {"verdict": "rejected", "reason": rejected.reason}
            continue
        signed = {"signing_key": signing_fingerprint(expected.enrolled[contribution.site])}
        account = {**_account(contribution), **signed, "set_sha256": digest}
        verdict |= {"verdict": "accepted", **account}
        opened.append(contribution)
    return opened


def _account(contribution: Opened) -> dict[str, Any]:
    payload = contribution.payload
    return {
        "images": payload.shape[0],
        "payload_sha256": payload.sha256,
        "record": contribution.record,
        "approved_by": [approval.fingerprint for approval in contribution.approvals],
    }


def _earlier_sets(run: RunDirectory, round: int) -> dict[str, str]:
    """Digest of each set accepted in an earlier round → its site."""
    paths = [path for past in range(1, round) if (path := run.verdicts(past)).exists()]
    verdicts = (item for path in paths for item in read_json(path)["sites"].items())
    return {of["set_sha256"]: site for site, of in verdicts if of["verdict"] == "accepted"}


def _read_bounded(path: Path) -> bytes:
    """A link could point anywhere, a file can have any size: both are looked at first."""
    demand(path.is_file() and not path.is_symlink(), Reason.LENGTH)
    demand(path.stat().st_size <= LARGEST_CONTRIBUTION, Reason.LENGTH)
    return path.read_bytes()


def _write_verdicts(run: RunDirectory, round: int, verdicts: Verdicts) -> None:
    write_json(run.verdicts(round), {"round": round, "sites": verdicts})


def _write_opened(folder: Path, contribution: Opened) -> None:
    for created in (folder.parent, folder):
        created.mkdir(mode=0o700, exist_ok=True)
        created.chmod(0o700)
    payload = contribution.payload
    arrays = {"images": payload.pixel_array(), "labels": payload.label_array()}
    soft = payload.soft_array()
    write_arrays(folder / "set.safetensors", arrays | ({} if soft is None else {"soft": soft}))
    write_json(folder / "record.json", contribution.record)
