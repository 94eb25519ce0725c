"""What `status` reads while a server writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedcondense.flower import server_status


def test_a_file_that_vanishes_while_it_is_counted_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "round-001").mkdir()
    (tmp_path / "round-001" / "intake.json").write_bytes(b"12345")
    before = list(os.walk(tmp_path))
    (tmp_path / "run.json").write_bytes(b"123")
    seen = [*before, (str(tmp_path), [], ["run.json", ".run.json.0123456789ab.tmp"])]
    monkeypatch.setattr(os, "walk", lambda folder: iter(seen))

    assert server_status._bytes_in(tmp_path) == 8
