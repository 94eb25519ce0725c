"""The run directory: names of all files of one run; where ServerApp and parent meet.

Whoever asks for a path gets a path; nothing is created by asking. The opening key is never here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tomli_w

from fedcondense.config.study import Study, load_study
from fedcondense.errors import DescriptionRejected, RunDirectoryError
from fedcondense.exchange.run_description import RunDescription, read_description
from fedcondense.exchange.sealing import Expectation
from fedcondense.exchange.terms import terms_of
from fedcondense.files.storage import read_json, write_atomically, write_json


@dataclass(frozen=True)
class Enrolment:
    """The raw Ed25519 public keys of an enrolled site: its own, and its data officer's.

    With an officer, nothing of the site counts that this officer has not approved.
    """

    public: bytes
    officer: bytes | None = None


class RunDirectory:
    """One execution of a study at the server; rounds are counted from 1."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, study: Study, description: bytes) -> RunDirectory:
        """Begin a run: its study, its digest, its signed description, nobody enrolled.

        Raises:
            RunDirectoryError: something is there already, or the study cannot be written as TOML.
            DescriptionRejected: the description is malformed, or of another study.
        """
        if path.exists() and any(path.iterdir()):
            raise RunDirectoryError(
                f"{path.name}: not empty", hint="name a new directory, or resume the run in it"
            )
        if read_description(description)[0].study_digest != study.digest:
            raise DescriptionRejected("the run is of another study", hint="describe the run again")
        run = cls(path)
        values = study.model_dump(mode="json", exclude_none=True)
        write_atomically(run.study_path, tomli_w.dumps(values).encode("utf-8"))
        write_atomically(run.digest_path, f"{study.digest}\n".encode("ascii"))
        write_json(run.enrolment_path, {})
        write_atomically(run.description_path, description)
        run.study()
        return run

    @property
    def study_path(self) -> Path:
        """The study file."""
        return self.path / "study.toml"

    @property
    def digest_path(self) -> Path:
        """The study's digest as the sites pin it."""
        return self.path / "study.digest"

    @property
    def description_path(self) -> Path:
        """The signed run description, byte for byte as sites get it."""
        return self.path / "run.json"

    @property
    def enrolment_path(self) -> Path:
        """The allow-list: name of a site → public keys in hex, `signing_key` and `officer`."""
        return self.path / "enrolment.json"

    @property
    def events_path(self) -> Path:
        """What happened, one JSON object a line: counts and codes only."""
        return self.path / "events.jsonl"

    @property
    def report_path(self) -> Path:
        """The report for people."""
        return self.path / "report.html"

    @property
    def report_json_path(self) -> Path:
        """The report's numbers."""
        return self.path / "report.json"

    def round(self, round: int) -> Path:
        """Everything of one round."""
        return self.path / f"round-{round:03d}"

    def request(self, round: int) -> Path:
        """What the sites were asked."""
        return self.round(round) / "request.json"

    def sealed_folder(self, round: int) -> Path:
        """Stored contributions, unopened."""
        return self.round(round) / "sealed"

    def sealed(self, round: int, site: str) -> Path:
        """The one contribution of a site; created exclusively, final."""
        return self.sealed_folder(round) / f"{site}.sealed"

    def rejections(self, round: int) -> Path:
        """Refused contributions, counted by site and reason."""
        return self.round(round) / "rejections.json"

    def intake(self, round: int) -> Path:
        """Written when all sites have answered, or at the deadline."""
        return self.round(round) / "intake.json"

    def opened_folder(self, round: int) -> Path:
        """Opened contributions, mode 0700, while they are needed."""
        return self.round(round) / "opened"

    def opened(self, round: int, site: str) -> Path:
        """One opened contribution."""
        return self.opened_folder(round) / site

    def verdicts(self, round: int) -> Path:
        """What became of each site's contribution, and why."""
        return self.round(round) / "verdicts.json"

    def global_set(self, round: int) -> Path:
        """The folder of the global synthetic set."""
        return self.round(round) / "global"

    def classifier(self, round: int) -> Path:
        """The folder of the classifier trained on the global synthetic set."""
        return self.round(round) / "classifier"

    def predictions(self, round: int) -> Path:
        """What the networks of a round predict of the server's own images."""
        return self.round(round) / "predictions.safetensors"

    def scores(self, round: int) -> Path:
        """The scores of the global synthetic set."""
        return self.round(round) / "scores.json"

    def result(self, round: int) -> Path:
        """What the round gave, signed: byte for byte as sites get it."""
        return self.round(round) / "result.json"

    def told(self, round: int) -> Path:
        """Written once the sites were told what the last round gave."""
        return self.round(round) / "told.json"

    def done(self, round: int) -> Path:
        """Written last: the round is complete."""
        return self.round(round) / "done.json"

    def study(self) -> Study:
        """The study of this run.

        Raises:
            RunDirectoryError: the study file is not the one that the run began with.
            SettingsError: it is not a study.
        """
        study = load_study(self.study_path)
        if study.digest != self._read(self.digest_path).decode("ascii", "replace").strip():
            raise RunDirectoryError(
                f"{self.path.name}: study.toml is not the study that was pinned",
                hint="a study cannot change in a run: restore the file, or begin a new run",
            )
        return study

    def description(self) -> RunDescription:
        """The run description; its signature is verified, its signer is whoever holds the file.

        Raises:
            RunDirectoryError: it is missing.
            DescriptionRejected: it is malformed or wrongly signed.
        """
        return read_description(self._read(self.description_path))[0]

    @property
    def enrolled(self) -> dict[str, Enrolment]:
        """Name of each enrolled site → its keys.

        Raises:
            RunDirectoryError: the allow-list is missing.
        """
        self._read(self.enrolment_path)
        sites = read_json(self.enrolment_path).items()
        return {
            site: Enrolment(
                public=bytes.fromhex(keys["signing_key"]),
                officer=bytes.fromhex(keys["officer"]) if keys["officer"] else None,
            )
            for site, keys in sites
        }

    def enrol(self, site: str, enrolment: Enrolment) -> None:
        """Put a site on the allow-list, or its keys in the place of those that stand there."""
        sites = read_json(self.enrolment_path)
        officer = enrolment.officer.hex() if enrolment.officer else None
        keys = {"signing_key": enrolment.public.hex(), "officer": officer}
        write_json(self.enrolment_path, {**sites, site: keys})

    def expel(self, site: str) -> None:
        """Take a site off the allow-list: nothing of it is stored or opened any more."""
        sites = {
            name: keys for name, keys in read_json(self.enrolment_path).items() if name != site
        }
        write_json(self.enrolment_path, sites)

    def expectation(self, round: int) -> Expectation:
        """What a contribution to `round` must be; a run takes only its own purpose.

        Raises:
            RunDirectoryError: a file of the run is missing or changed.
        """
        description, enrolled = self.description(), self.enrolled
        return Expectation(
            terms=terms_of(self.study()),
            description=description,
            round=round,
            purposes=frozenset({description.purpose}),
            enrolled={site: keys.public for site, keys in enrolled.items()},
            officers={site: keys.officer for site, keys in enrolled.items() if keys.officer},
        )

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError:
            raise RunDirectoryError(
                f"{self.path.name}: {path.name} cannot be read", hint="name the directory of a run"
            ) from None
