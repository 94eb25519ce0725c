"""A small repetition, and what turns the engine's condensations into the kit's stand-in."""

from __future__ import annotations

import os
from pathlib import Path

import federation_kit
import pytest
from federation_kit import Repetition, make_repetition
from flwr.supercore.task_identity import TaskIdentity

STAND_IN = Path(__file__).parent / "standin"


@pytest.fixture(autouse=True, scope="session")
def _task() -> None:
    """Messages can only be made in a task of Flower's."""
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1


@pytest.fixture
def repetition(tmp_path: Path) -> Repetition:
    return make_repetition(tmp_path, sites=3)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    kits = Path(federation_kit.__file__).parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(STAND_IN), str(kits)]))
