"""A coordinator's folder as `fedcondense-server init` leaves it, without the command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from wire_kit import small_study

from fedcondense.config.server import ServerConfig, load_server
from fedcondense.config.study import Study
from fedcondense.exchange.certificates import (
    Authority,
    ServerTls,
    create_authority,
    issue_certificate,
)
from fedcondense.exchange.keys import SigningKey
from fedcondense.server.enrolment import Register

NAME = "localhost"


@dataclass(frozen=True)
class Office:
    """The folder of a coordinator, with its settings."""

    folder: Path
    config: ServerConfig

    @property
    def register(self) -> Register:
        return Register(self.config.enrolled, self.config.revoked)

    @property
    def tls(self) -> ServerTls:
        files = self.config.tls
        return ServerTls(files.certificate, files.key, files.authority)

    def write_study(self, study: Study) -> None:
        text = tomli_w.dumps(study.model_dump(mode="json", exclude_none=True))
        self.config.study.write_text(text)

    def certify(self) -> None:
        """Make authority and certificate: slower than all the rest."""
        authority = Authority(self.config.tls.authority, self.config.keys / "authority.key")
        create_authority(authority, "test")
        issue_certificate(self.tls, authority, self.config.address.names)


def make_office(folder: Path, *, study: Study | None = None, **changes: Any) -> Office:
    """A folder with a study, a run-signing key and nobody enrolled."""
    values = {
        "address": {"names": [NAME]},
        "evaluation": {"kind": "phantoms", "images_per_class": 8, "seed": 9},
    }
    path = folder / "SERVER.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tomli_w.dumps(values | changes))
    office = Office(folder, load_server(path))
    office.write_study(study or small_study(quorum=1))
    SigningKey.generate().save(office.config.run_signing_key)
    office.register.create()
    return office
