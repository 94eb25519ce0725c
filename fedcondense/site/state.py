"""A site's state directory: where one round of one study keeps what it knows, all of it local."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from fedcondense.data.dataset import LabeledImages
from fedcondense.distill.synthetic import SyntheticSet
from fedcondense.errors import ReleaseRefused
from fedcondense.exchange.approval import Approval
from fedcondense.files.lock import locked
from fedcondense.files.storage import (
    read_arrays,
    read_json,
    remove_unfinished,
    write_arrays,
    write_atomically,
    write_json,
)
from fedcondense.privacy.findings import Audits
from fedcondense.privacy.receipt import Paid
from fedcondense.progress import peak_megabytes
from fedcondense.site.journal import JOURNAL

# what one set has; put aside with it when it is refused and another is tried
_OF_AN_ATTEMPT = (
    "figures.json",  # first: without it no set counts as finished
    "synthetic.safetensors",
    "paid.json",
    "audits.json",
    "likenesses.safetensors",
    "release-record.json",
    "approval.json",
    "preview.html",
)


class LocalFigures(BaseModel):
    """What a site knows of its own condensation; no figure of it is ever sent.

    `began` is in seconds since 1970 UTC. `images` and `groups` are those condensed, without the
    classes `left_out`; `real_bytes` is the size of their pixels as uint8 in the study's form;
    memory is the most that the process held.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int
    groups: int
    class_counts: dict[str, int]
    left_out: tuple[str, ...]
    synthetic_images: int
    real_bytes: int
    began: float
    seconds: float
    peak_megabytes: float


@dataclass(frozen=True)
class Outlay:
    """What a set was paid with, and how often its method asked for anything of patients."""

    paid: Paid
    accesses: int

    def to_json(self) -> dict[str, Any]:
        """For `paid.json`."""
        return {"accesses": self.accesses, "paid": self.paid.to_json()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Outlay:
        """What `to_json` wrote.

        Raises:
            LedgerError: it is something else.
        """
        return cls(Paid.from_json(value["paid"]), int(value["accesses"]))


class RoundState:
    """The folder of one (study digest, round) in a site's state directory."""

    def __init__(self, state: Path, study_digest: str, round_number: int) -> None:
        self.folder = state / "runs" / study_digest / f"round-{round_number:03d}"

    @property
    def journal(self) -> Path:
        """Progress, one JSON line a step."""
        return self.folder / JOURNAL

    @property
    def checkpoint(self) -> Path:
        """State of an unfinished distillation."""
        return self.folder / "checkpoint.safetensors"

    def sealed(self, run: str) -> Path:
        """The sealed bytes for one run."""
        return self.folder / "sealed" / f"{run}.sealed"

    @property
    def _figures(self) -> Path:
        return self.folder / "figures.json"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """One process at a time: never two condensations for one request."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(self.folder / "lock"):
            remove_unfinished(self.folder)
            yield

    @property
    def attempt(self) -> int:
        """The number of the set that is condensed or kept, from 1."""
        return len(self._refused()) + 1

    def begin_anew(self, most: int) -> None:
        """Put a refused set aside, so that another can be condensed.

        Raises:
            ReleaseRefused: the site allows no further attempt.
        """
        if not self.refusals():
            return
        if self.attempt >= most:
            raise ReleaseRefused(
                f"{most} sets of this round were refused, no more are looked at",
                hint="change the study with the others; release.attempts is the site's own limit",
            )
        aside = self.folder / f"attempt-{self.attempt}"
        aside.mkdir(mode=0o700, exist_ok=True)
        for name in _OF_AN_ATTEMPT:
            if (self.folder / name).exists():
                (self.folder / name).rename(aside / name)
        # last: until it is gone, the attempt counts as the refused one
        (self.folder / "refusal.json").rename(aside / "refusal.json")

    def demand_no_refusal(self) -> None:
        """A refused set stays refused: whoever asks again learns nothing more.

        Raises:
            ReleaseRefused: the gate refused the kept set.
        """
        if refusals := self.refusals():
            raise ReleaseRefused(
                f"nothing is released: {', '.join(refusals)}",
                hint="the site's own `preview` may try another set",
            )

    def keep_refusal(self, refusals: Sequence[str]) -> None:
        """Keep why the gate refused the set."""
        write_json(self.folder / "refusal.json", {"refusals": list(refusals)})

    def refusals(self) -> tuple[str, ...]:
        """Why the gate refused the kept set; empty if it did not, or was not asked."""
        path = self.folder / "refusal.json"
        return tuple(read_json(path)["refusals"]) if path.exists() else ()

    def has_passed(self) -> bool:
        """Whether a set is kept that the gate let pass."""
        return self.finished() and self.has_record() and not self.refusals()

    def _refused(self) -> list[Path]:
        return list(self.folder.glob("attempt-*/refusal.json"))

    def keep(
        self, synthetic: SyntheticSet, figures: LocalFigures, outlay: Outlay | None = None
    ) -> None:
        """Keep a finished set with its start; the figures, written last, mark it as whole.

        `outlay` is what it was paid with. A set that never faces a gate may have none.
        """
        if outlay is not None:
            write_json(self.folder / "paid.json", outlay.to_json())
        arrays = {
            "images": synthetic.images.cpu().numpy(),
            "labels": synthetic.labels.cpu().numpy(),
            "started_from": synthetic.started_from.cpu().numpy(),
        }
        if synthetic.soft is not None:
            arrays["soft"] = synthetic.soft.cpu().numpy()
        if synthetic.student_rate is not None:
            arrays["student_rate"] = np.array(synthetic.student_rate)
        write_arrays(self.folder / "synthetic.safetensors", arrays)
        write_atomically(self._figures, figures.model_dump_json().encode())

    def finished(self) -> bool:
        """Whether a set was kept."""
        return self._figures.exists()

    def synthetic(self) -> dict[str, np.ndarray]:
        """The kept set: `images` (N, C, H, W) in normalised units, `labels`, `started_from`.

        Also `soft` label probabilities and the `student_rate`, where the method learns them.
        """
        return read_arrays(self.folder / "synthetic.safetensors")

    def sealed_once(self, run: str, make: Callable[[], bytes]) -> bytes:
        """The sealed bytes for one run, made at the first call: sealing again gives other bytes."""
        path = self.sealed(run)
        if not path.exists():
            write_atomically(path, make(), mode=0o600)
        return path.read_bytes()

    def keep_record(self, record: dict[str, Any]) -> None:
        """Keep the newest release record of the set."""
        write_json(self.folder / "release-record.json", record)

    def has_record(self) -> bool:
        """Whether the gate was asked."""
        return (self.folder / "release-record.json").exists()

    def record(self) -> dict[str, Any]:
        """The kept release record."""
        return dict(read_json(self.folder / "release-record.json"))

    def outlay(self) -> Outlay:
        """What the kept set was paid with."""
        return Outlay.from_json(read_json(self.folder / "paid.json"))

    def keep_audits(self, audits: Audits) -> None:
        """Keep all that was found on the payload; it stays here."""
        write_atomically(
            self.folder / "audits.json", json.dumps(audits.to_json(), indent=1).encode()
        )

    def audits(self, payload_sha256: str) -> Audits | None:
        """What was found on the payload of this digest, if it was audited."""
        path = self.folder / "audits.json"
        found = Audits.from_json(json.loads(path.read_bytes())) if path.exists() else None
        return found if found and found.payload_sha256 == payload_sha256 else None

    def keep_approval(self, approval: Approval, officer: bytes) -> None:
        """Keep the data officer's approval with the public key that gave it."""
        value = {"approval": asdict(approval), "officer": officer.hex()}
        write_json(self.folder / "approval.json", value)

    def approval(self) -> tuple[Approval, bytes] | None:
        """The kept approval and the public key that gave it."""
        path = self.folder / "approval.json"
        if not path.exists():
            return None
        value = read_json(path)
        return Approval(**value["approval"]), bytes.fromhex(value["officer"])

    @property
    def likenesses(self) -> Path:
        """The pictures of the set most like a patient's; for local eyes only."""
        return self.folder / "likenesses.safetensors"

    @property
    def page(self) -> Path:
        """The page that the data officer reads."""
        return self.folder / "preview.html"

    def figures(self) -> LocalFigures:
        """The kept figures."""
        return LocalFigures.model_validate_json(self._figures.read_bytes())


def local_figures(train: LabeledImages, synthetic: SyntheticSet, began: float) -> LocalFigures:
    """The figures of a condensation that ends now."""
    made = set(synthetic.labels.tolist())
    left_out = tuple(name for label, name in enumerate(train.classes) if label not in made)
    counts = zip(train.classes, train.counts().tolist(), strict=True)
    return LocalFigures(
        images=len(train),
        groups=len(set(train.groups)),
        class_counts=dict(counts),
        left_out=left_out,
        synthetic_images=len(synthetic.labels),
        real_bytes=train.images.numel(),
        began=began,
        seconds=time.time() - began,
        peak_megabytes=peak_megabytes(),
    )
