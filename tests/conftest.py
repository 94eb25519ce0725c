"""What every test relies on: one thread, reproducible examples, and where real data may be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("project", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("project")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real radiographs; its `split` and `group` are law."""
    path = Path(os.environ.get("FEDCONDENSE_TEST_DATA", Path(__file__).parents[2] / "shared/data"))
    if not (path / "covid_cxr").is_dir():
        pytest.skip("no real radiographs here: name their folder in FEDCONDENSE_TEST_DATA")
    return path


@pytest.fixture
def audits_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sites whose audits pass without being run."""
    from hospital_kit import audits_that_pass

    monkeypatch.setattr("fedcondense.site.contribute.run_audits", audits_that_pass)
