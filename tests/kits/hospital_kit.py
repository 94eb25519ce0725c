"""One small hospital with real keys and images on disk, and a run that it may contribute to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from wire_kit import HPKE, RUN

from fedcondense.config.loading import parse_settings
from fedcondense.config.scenario import ReleaseMode
from fedcondense.config.site import SiteConfig
from fedcondense.config.study import Study
from fedcondense.exchange.contribution import SyntheticArrays
from fedcondense.exchange.keys import OpeningKey, SigningKey
from fedcondense.exchange.run_description import Request, RunDescription
from fedcondense.exchange.sealing import Expectation, Opened, binding, open_sealed
from fedcondense.exchange.terms import terms_of
from fedcondense.privacy.findings import AuditResult, Audits, Verdict
from fedcondense.progress import Watch, silent
from fedcondense.site.contribute import contribute
from fedcondense.site.state import RoundState

CLASSES = ("COVID", "Normal", "Pneumonia")
TINY = {
    "method": "idm",
    "iterations": 2,
    "real_batch": 4,
    "queue_start": 1,
    "trained_networks": 1,
    "training_steps": 1,
    "training_batch": 4,
}


def tiny_study(*, privacy: dict[str, Any] | None = None, **distill: Any) -> Study:
    values = {
        "name": "tiny",
        "classes": list(CLASSES),
        "image": {"size": 16},
        "network": {"width": 4, "depth": 2},
        "images_per_class": 2,
        "distill": TINY | distill,
        "privacy": privacy or {"mode": "none"},
        "quorum": 1,
    }
    return parse_settings(Study, values, "tiny")


def films(patients: tuple[int, ...] = (4, 4, 4), films_each: int = 1) -> dict[str, np.ndarray]:
    """The arrays of an npz: so many patients of each class, with so many films each."""
    labels = np.repeat(np.arange(len(CLASSES)), [n * films_each for n in patients])
    random = np.random.default_rng(7)
    pixels = random.integers(0, 120, (len(labels), 16, 16)) + 40 * labels[:, None, None]
    names = [f"patient {row // films_each}" for row in range(len(labels))]
    return {
        "images": pixels.astype(np.uint8),
        "labels": labels,
        "class_names": np.array(CLASSES),
        "patient_id": np.array(names),
    }


def audits_that_pass(arrays: SyntheticArrays, *, payload_sha256: str, **rest: Any) -> Audits:
    """Stands for `run_audits` where what it finds is not the question: the audit takes seconds."""
    passed = AuditResult("memorisation", Verdict.PASSED, (), seconds=0.0, note="")
    return Audits(payload_sha256, "quick", (passed,))


@dataclass
class Hospital:
    """A site in `folder` with images `arrays`; `release` and `settings` go into site.toml."""

    folder: Path
    study: Study = field(default_factory=tiny_study)
    arrays: dict[str, np.ndarray] = field(default_factory=films)
    least: int = 3
    held_out: float = 0.0
    release: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    opening: OpeningKey = field(default_factory=OpeningKey.generate)
    key: SigningKey = field(default_factory=SigningKey.generate)

    def __post_init__(self) -> None:
        self.key.save(self.folder / "keys" / "signing.key")
        np.savez(self.folder / "images.npz", **self.arrays)

    @property
    def site(self) -> SiteConfig:
        values = {
            "name": "site-1",
            "seed": 11,
            "images": {"kind": "npz", "path": str(self.folder / "images.npz")},
            "state": str(self.folder),
            "study": str(self.folder / "study.toml"),
            "study_digest": self.study.digest,
            "run_signing_fingerprint": "pinned elsewhere",
            "release": {
                "min_patients_per_class": self.least,
                "held_out": self.held_out,
                **self.release,
            },
            **self.settings,
        }
        return parse_settings(SiteConfig, values, "site.toml")

    @property
    def state(self) -> RoundState:
        return RoundState(self.folder, self.study.digest, 1)

    def description(self, run: str = RUN, purpose: str = "release") -> RunDescription:
        return RunDescription(
            study_digest=self.study.digest,
            run=run,
            recipient=self.opening.recipient.raw.hex(),
            quorum=1,
            deadline=1_900_000_000,
            purpose=purpose,
        )

    def contribute(
        self,
        *,
        run: str = RUN,
        mode: ReleaseMode = ReleaseMode.ENFORCED,
        watch: Watch = silent,
    ) -> bytes:
        purpose = "release" if mode is ReleaseMode.ENFORCED else "simulation"
        request = Request(self.description(run, purpose), 1)
        return contribute(self.site, self.study, request, mode=mode, watch=watch)

    def open(self, blob: bytes, *, run: str = RUN, purpose: str = "release") -> Opened:
        expected = Expectation(
            terms=terms_of(self.study),
            description=self.description(run, purpose),
            round=1,
            purposes=frozenset({purpose}),
            enrolled={"site-1": self.key.public},
        )
        return open_sealed(blob, expected, self.opening)

    def plaintext(self, blob: bytes) -> bytes:
        """All that a contribution says to whoever holds the opening key: manifest and body."""
        length = int.from_bytes(blob[8:12], "little")
        manifest, ciphertext = blob[12 : 12 + length], blob[12 + length + 8 : -64]
        body = HPKE.decrypt(ciphertext, self.opening.private_key(), info=binding(manifest))
        return manifest + body
