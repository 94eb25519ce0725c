"""One repetition on disk as research lays it out, and a stand-in for a site's condensation."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import tomli_w
from wire_kit import RUN, decided, payload_of, small_study

from fedcondense.config.scenario import ReleaseMode
from fedcondense.config.site import SiteConfig
from fedcondense.config.study import Study
from fedcondense.errors import DataError
from fedcondense.exchange.keys import OpeningKey, SigningKey
from fedcondense.exchange.run_description import Request, RunDescription, sign_description
from fedcondense.exchange.sealing import seal
from fedcondense.files.storage import read_json, write_atomically, write_json
from fedcondense.progress import Step, Watch, silent
from fedcondense.server.intake import enroll
from fedcondense.server.run_directory import RunDirectory

PATIENT = "Jane Doe"


@dataclass
class Repetition:
    """One repetition's directory and the keys that made it."""

    path: Path
    study: Study
    run: RunDirectory
    operator: SigningKey
    description: RunDescription
    keys: dict[str, SigningKey] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return list(self.keys)

    def site(self, name: str) -> Path:
        return self.path / "sites" / name

    def behave(self, site: str, *, seconds: float = 0.0, raises: str = "") -> None:
        """Say what the stand-in does at a site."""
        write_json(self.site(site) / "behaviour.json", {"seconds": str(seconds), "raises": raises})

    def starts(self, site: str) -> list[int]:
        """Process ids of the site's condensations so far."""
        path = self.site(site) / "starts.log"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def sealed(self, site: str, *, round: int = 1) -> bytes:
        """A contribution as the site's own code seals it."""
        released = decided(payload_of(self.study, seed=len(site)), self.study, round=round)
        request = Request(self.description, round)
        return seal(released, request, site, self.study, self.keys[site])

    def settle(self, name: str) -> None:
        """Give a site its folder, key and files, and enroll it."""
        folder, key = self.site(name), SigningKey.generate()
        key.save(folder / "keys" / "signing.key")
        (folder / "study.toml").write_bytes(self.run.study_path.read_bytes())
        values = {
            "name": name,
            "seed": 1,
            "images": {"kind": "phantoms", "images_per_class": 8},
            "state": str(folder),
            "study": str(folder / "study.toml"),
            "study_digest": self.study.digest,
            "run_signing_fingerprint": self.operator.fingerprint,
        }
        (folder / "site.toml").write_text(tomli_w.dumps(values))
        enroll(self.run, name, key.public)
        self.keys[name] = key
        self.behave(name)


def make_repetition(
    root: Path, sites: int, *, seconds: float = 300.0, rounds: int = 1
) -> Repetition:
    """A repetition whose deadline is `seconds` away, with a quorum of one."""
    study, operator = small_study(quorum=1, rounds=rounds), SigningKey.generate()
    description = RunDescription(
        study_digest=study.digest,
        run=RUN,
        recipient=OpeningKey.generate().recipient.raw.hex(),
        quorum=1,
        deadline=int(time.time() + seconds),
        purpose="release",
    )
    path = root / "seed-0"
    signed = sign_description(description, operator)
    run = RunDirectory.create(path / "server", study, signed)
    repetition = Repetition(path, study, run, operator, description)
    for number in range(1, sites + 1):
        repetition.settle(f"site-{number}")
    write_json(path / "sites.json", repetition.names)
    (root / "scenario.toml").write_text('name = "small"\n')
    return repetition


def stand_in(
    site: SiteConfig,
    study: Study,
    request: Request,
    *,
    mode: ReleaseMode = ReleaseMode.ENFORCED,
    watch: Watch = silent,
) -> bytes:
    """What a site's `contribute` does for its caller, without images; it does as it was told."""
    behaviour = read_json(site.state / "behaviour.json")
    with (site.state / "starts.log").open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    watch(Step("condensing", 1, 2, {"loss": 0.5}))
    time.sleep(float(behaviour["seconds"]))
    if behaviour.get("length"):
        return bytes(behaviour["length"])
    if behaviour["raises"] == "DataError":
        raise DataError(f"no image of {PATIENT} can be read", hint=f"look for {PATIENT}")
    if behaviour["raises"]:
        raise ValueError(PATIENT)
    kept = site.state / f"kept-{request.round}.sealed"
    if not kept.exists():
        payload = payload_of(study, seed=site.seed)
        released = decided(payload, study, mode, round=request.round)
        key = SigningKey.load(site.state / "keys" / "signing.key")
        write_atomically(kept, seal(released, request, site.name, study, key))
    return kept.read_bytes()


def main() -> None:
    """Play the repetition at argv[1] until somebody stops this process."""
    import sys

    from fedcondense.flower.simulation import run_federation

    run_federation(Path(sys.argv[1]), cpus=2, conclude=lambda _: time.sleep(3600))


if __name__ == "__main__":
    main()
