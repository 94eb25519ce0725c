"""A repetition on disk as research lays it out, with keys, and with a stand-in for condensing."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tomli_w

from fedcondense.config.study import Study
from fedcondense.exchange.keys import OpeningKey, SigningKey
from fedcondense.exchange.run_description import RunDescription, sign_description
from fedcondense.server.intake import enroll
from fedcondense.server.run_directory import RunDirectory

STAND_IN = Path(__file__).parent / "standin"


def small_study(quorum: int = 1) -> Study:
    return Study.model_validate(
        {
            "name": "small",
            "classes": ("healthy", "sick"),
            "image": {"size": 16},
            "images_per_class": 2,
            "distill": {"method": "idm", "preset": "short"},
            "quorum": quorum,
        }
    )


@dataclass
class Repetition:
    """One repetition's directory and the keys that made it."""

    path: Path
    study: Study
    run: RunDirectory
    operator: SigningKey
    opening: OpeningKey
    keys: dict[str, SigningKey] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return list(self.keys)

    def behave(self, site: str, *, seconds: float = 0.0, raises: str = "") -> None:
        path = self.path / "sites" / site / "behaviour.json"
        path.write_text(json.dumps({"seconds": seconds, "raises": raises}))

    def starts(self, site: str) -> list[int]:
        """Process ids of the site's condensations."""
        path = self.path / "sites" / site / "starts.log"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def _add_site(self, name: str, number: int) -> None:
        folder = self.path / "sites" / name
        key = SigningKey.generate()
        key.save(folder / "keys" / "signing.key")
        (folder / "study.toml").write_bytes(self.run.study_path.read_bytes())
        values = {
            "name": name,
            "seed": number,
            "images": {"kind": "phantoms"},
            "state": str(folder),
            "study": str(folder / "study.toml"),
            "study_digest": self.study.digest,
            "run_signing_fingerprint": self.operator.fingerprint,
        }
        (folder / "site.toml").write_text(tomli_w.dumps(values))
        enroll(self.run, name, key.public)
        self.keys[name] = key
        self.behave(name)


def make_repetition(root: Path, sites: int, *, seconds: float = 300.0) -> Repetition:
    study, operator, opening = small_study(), SigningKey.generate(), OpeningKey.generate()
    description = RunDescription(
        study_digest=study.digest,
        run="0123456789abcdef" * 2,
        recipient=opening.recipient.raw.hex(),
        quorum=study.quorum,
        deadline=int(time.time() + seconds),
        purpose="release",
    )
    path = root / "seed-0"
    signed = sign_description(description, operator)
    run = RunDirectory.create(path / "server", study, signed)
    repetition = Repetition(path, study, run, operator, opening)
    for number in range(1, sites + 1):
        repetition._add_site(f"site-{number}", number)
    (path / "sites.json").write_text(json.dumps(repetition.names))
    (root / "scenario.toml").write_text('name = "small"\n')
    return repetition


@pytest.fixture
def repetition(tmp_path: Path) -> Repetition:
    return make_repetition(tmp_path, sites=3)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the engine's processes a site's condensation is the stand-in's."""
    monkeypatch.setenv("PYTHONPATH", str(STAND_IN))
