"""The sites of one repetition and their server: folders, keys and settings, as if deployed."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from fedcondense.config.privacy import Budget, Declared, FormalPrivacy
from fedcondense.config.scenario import ReleaseMode, Scenario
from fedcondense.config.site import ImageNpz, SiteConfig
from fedcondense.config.study import Study
from fedcondense.data.archive import save_images
from fedcondense.data.dataset import LabeledImages
from fedcondense.exchange.keys import OpeningKey, SigningKey, signing_fingerprint
from fedcondense.exchange.run_description import RunDescription, sign_description
from fedcondense.files.storage import write_atomically, write_json
from fedcondense.learning.randomness import Seed
from fedcondense.server.intake import enroll
from fedcondense.server.run_directory import RunDirectory
from fedcondense.site.state import RoundState

DEADLINE = 7 * 24 * 3600  # seconds; a simulation waits for nobody but its own processes


@dataclass(frozen=True)
class Consortium:
    """A built repetition: the server's run directory, the opening key, the sites' settings.

    The opening key and the run-signing key live in this process's memory alone.
    """

    folder: Path
    run: RunDirectory
    opening_key: OpeningKey
    signer: SigningKey
    sites: Mapping[str, SiteConfig]

    def fingerprint(self, site: str) -> str:
        """The fingerprint of a site's signing key."""
        return signing_fingerprint(self.run.enrolled[site].public)

    def state(self, site: str, study: Study, round: int) -> RoundState:
        """What a site keeps of a round."""
        return RoundState(self.sites[site].state, study.digest, round)


def build_consortium(
    folder: Path,
    scenario: Scenario,
    study: Study,
    parts: Mapping[str, LabeledImages],
    *,
    experts: Path | None = None,
) -> Consortium:
    """Give every site of `parts` its folder and keys, and begin a run at the server.

    What a site kept of an earlier attempt stays: finished sets are not condensed again, they are
    sealed anew to the new run. `experts` is where the sites of several studies keep the experts
    that they share, each in a folder of its name; left out, a site keeps its own.
    """
    run_signing, opening = SigningKey.generate(), OpeningKey.generate()
    simulated = scenario.release is ReleaseMode.STUDY_ONLY
    description = RunDescription(
        study_digest=study.digest,
        run=secrets.token_hex(16),
        recipient=opening.recipient.raw.hex(),
        quorum=study.quorum,
        deadline=int(time.time()) + DEADLINE,
        purpose="simulation" if simulated else "release",
    )
    shutil.rmtree(folder / "server", ignore_errors=True)
    signed = sign_description(description, run_signing)
    run = RunDirectory.create(folder / "server", study, signed)
    sites = {}
    for name, images in parts.items():
        place = folder / "sites" / name
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = _signing_key(place)
        shared = None if experts is None else (experts / name).absolute()
        sites[name] = _settle(place, scenario, study, images, run_signing.fingerprint, shared)
        enroll(run, name, key.public)
    write_json(folder / "sites.json", list(parts))
    return Consortium(folder, run, opening, run_signing, sites)


def _signing_key(place: Path) -> SigningKey:
    """The site's own key, kept over attempts."""
    path = place / "keys" / "signing.key"
    if path.exists():
        return SigningKey.load(path)
    key = SigningKey.generate()
    key.save(path)
    return key


def _settle(
    place: Path,
    scenario: Scenario,
    study: Study,
    images: LabeledImages,
    pinned: str,
    experts: Path | None,
) -> SiteConfig:
    """Write a site's images, study file and settings."""
    archive = place / "images.npz"
    if not archive.exists():
        save_images(images, archive)
    site = SiteConfig(
        name=place.name,
        seed=Seed(study.seed).child(place.name).value,
        images=ImageNpz(kind="npz", path=archive.absolute()),
        state=place.absolute(),
        experts=experts,
        study=(place / "study.toml").absolute(),
        study_digest=study.digest,
        run_signing_fingerprint=pinned,
        threads=1,
        device=scenario.device,
        release=scenario.site,
        ledger=_budget(scenario, study),
        declared=_declared(images),
    )
    for name, values in (("site.toml", site), ("study.toml", study)):
        text = tomli_w.dumps(values.model_dump(mode="json", exclude_none=True))
        write_atomically(place / name, text.encode("utf-8"))
    return site


def _budget(scenario: Scenario, study: Study) -> Budget | None:
    """The scenario's, or as much as the study asks for: each played study has its own ledger."""
    asked = study.privacy
    if scenario.ledger is not None or not isinstance(asked, FormalPrivacy):
        return scenario.ledger
    return Budget(epsilon=asked.epsilon, delta=asked.delta, unit=asked.unit)


def _declared(images: LabeledImages) -> Declared:
    """What the site would make public: how many images it has, and patients if it knows them."""
    patients = set(images.patients or ("",))
    return Declared(images=len(images), patients=None if "" in patients else len(patients))
