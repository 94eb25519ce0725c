"""What the commands show wherever they are given."""

from __future__ import annotations

import io
import os
import sys
from types import ModuleType

import pytest

from fedcondense.cli import server, simulate, site

ODD = os.fsdecode(b"M\xfcller-1.png")  # the bytes of an old archive, in Latin-1


@pytest.mark.parametrize("command", [site, server, simulate])
def test_a_name_that_the_terminal_cannot_show_is_printed_with_escapes(
    command: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="utf-8"))
    monkeypatch.setattr(sys, "argv", ["fedcondense", "--help"])
    monkeypatch.setattr(command, "app", lambda: sys.stdout.write(f"{ODD}\n"))

    command.main()
    sys.stdout.flush()

    assert shown.getvalue() == b"M\\udcfcller-1.png\n"
