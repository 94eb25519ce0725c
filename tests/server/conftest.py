"""One run for all tests of this folder: keys are slow to make and nothing changes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from wire_kit import Wire

from fedcondense.exchange.run_description import sign_description
from fedcondense.server.intake import enroll
from fedcondense.server.run_directory import RunDirectory


@pytest.fixture(scope="session")
def wire() -> Wire:
    return Wire()


@pytest.fixture
def run(wire: Wire, tmp_path: Path) -> RunDirectory:
    """A run with both sites enrolled and nothing received."""
    signed = sign_description(wire.description, wire.server)
    run = RunDirectory.create(tmp_path / "run", wire.study, signed)
    for site, key in wire.keys.items():
        enroll(run, site, key.public)
    return run
