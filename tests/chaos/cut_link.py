"""The cable of a site is cut for 90 seconds in the midst of its upload.

Server and sites have network namespaces of their own. The contribution is a stand-in of 32 MB:
a real one of that size would take an hour to condense, and what travels is what matters here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from commands_kit import Machine
from deployment_kit import STAND_IN, make_consortium
from network_kit import bytes_taken, cut, machines, mend
from paced_kit import KITS
from played_study import FIRST, SECOND, SERVER, Study, demand
from wire_kit import payload_of

from fedcondense.exchange.sealing import Opened
from fedcondense.server.aggregate import aggregate
from fedcondense.server.current_run import study_of

SECONDS = 90.0
MIDST = 4_000_000  # bytes of 33 million that the server has taken when the cable is cut
LOOK = 0.002  # seconds
LONGEST_UPLOAD = 120.0  # seconds until it begins
LARGE = {"images_per_class": 1000, "image": {"size": 128}}
PATHS = os.pathsep.join([str(STAND_IN), str(KITS)])


class NoNamespaces(Exception):
    """The kernel has none, or not for this user."""


@dataclass(frozen=True)
class Cut:
    """A study whose first site loses its link to the server."""

    study: Study
    server: Machine

    @property
    def expected(self) -> str:
        """The digest of what both stand-ins send."""
        study = study_of(self.study.consortium.office.config)
        names = enumerate((FIRST, SECOND), start=1)
        opened = [Opened(name, payload_of(study, seed=number), {}) for number, name in names]
        return aggregate(opened, study).sha256

    def disturb(self, study: Study) -> str:
        """Cut, wait, mend; how much had arrived."""
        for name in (SERVER, FIRST, SECOND):
            study.begin(name)
        study.wait((study.site(FIRST) / "kept-1.sealed").exists, "contribution")
        until = time.monotonic() + LONGEST_UPLOAD
        while (taken := bytes_taken(self.server, 1)) < MIDST and time.monotonic() < until:
            time.sleep(LOOK)
        cut(self.server, 1)
        demand(FIRST not in study.stored() and taken > MIDST, f"{taken} bytes arrived")
        time.sleep(SECONDS)
        mend(self.server, 1)
        return f"{taken / 1e6:.1f} MB had arrived"


@contextmanager
def cut_link(folder: Path) -> Iterator[Cut]:
    """A server and two sites with machines of their own.

    Raises:
        NoNamespaces: there cannot be any.
    """
    with ExitStack() as stack:
        try:
            places = stack.enter_context(machines(sites=2))
        except OSError as error:
            raise NoNamespaces(str(error)) from None
        address = {"names": [places[0].address], "listen": places[0].address}
        consortium = make_consortium(
            folder, sites=2, quorum=2, study=LARGE, address=address, threads=2
        )
        for site in consortium.sites.values():
            site.may_join()
        parties = dict(zip((SERVER, FIRST, SECOND), places, strict=True))
        yield Cut(Study(consortium, parties, paths=PATHS), places[0])
