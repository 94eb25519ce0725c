"""A site's keys, and the request that its `init` writes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from fedcondense.exchange.enrolment_request import EnrolmentRequest, write_enrolment
from fedcondense.exchange.keys import SigningKey
from fedcondense.exchange.node_key import NodeKey

DAY = 24 * 3600
NOW = float(int(time.time()))


@dataclass
class Applicant:
    """A site that asks to be enrolled; without `officer` it has no data officer."""

    name: str = "lakeside"
    expires: int = int(NOW) + 365 * DAY
    signing: SigningKey = field(default_factory=SigningKey.generate)
    node: NodeKey = field(default_factory=NodeKey.generate)
    officer: SigningKey | None = None

    @property
    def request(self) -> EnrolmentRequest:
        return EnrolmentRequest(
            site=self.name,
            signing_key=self.signing.public.hex(),
            node_key=self.node.public,
            expires=self.expires,
            officer_key=self.officer.public.hex() if self.officer else None,
        )

    def write(self, folder: Path) -> Path:
        """The request file in `folder`; another one each time."""
        number = len(list(folder.glob("*.request"))) if folder.exists() else 0
        path = folder / f"{self.name}-{number}.request"
        write_enrolment(path, self.request, self.signing)
        return path
