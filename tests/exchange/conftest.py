"""One run for all tests of this folder: keys are slow to make and nothing changes them."""

from __future__ import annotations

import pytest
from wire_kit import Wire


@pytest.fixture(scope="session")
def wire() -> Wire:
    return Wire()
