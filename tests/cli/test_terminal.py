"""What the commands show wherever they are given."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer
from typer.testing import CliRunner

from fedcondense.cli import server, simulate, site
from fedcondense.cli.terminal import operator_errors

ODD = os.fsdecode(b"M\xfcller-1.png")  # the bytes of an old archive, in Latin-1


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


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


@pytest.mark.parametrize(
    ("app", "command"),
    [(site.app, "status"), (server.app, "status"), (simulate.app, "")],
)
def test_settings_that_cannot_be_read_are_an_error_with_a_code(
    app: typer.Typer, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "settings.toml"
    path.touch()

    def refuse(self: Path, **_: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    monkeypatch.setattr(Path, "read_text", refuse)

    ran = CliRunner().invoke(app, [*filter(None, [command]), str(path)])

    assert ran.exit_code == 2
    assert f"error FC101: {path}: permission denied\n" in ran.stderr


@pytest.fixture
def _heard_from_a_keyboard() -> Iterator[None]:
    """A shell starts what runs in its background deaf to Ctrl-C; that is not the question here."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heard_from_a_keyboard")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 1)])
@pytest.mark.parametrize("command", [site, server, simulate])
def test_a_stop_of_a_service_is_told_from_an_error(
    command: ModuleType,
    number: signal.Signals,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stopped() -> None:
        with operator_errors("fedcondense"):
            signal.raise_signal(number)

    monkeypatch.setattr(sys, "argv", ["fedcondense", "--help"])
    monkeypatch.setattr(command, "app", stopped)

    with pytest.raises(SystemExit) as end:
        command.main()

    assert end.value.code == code
    assert "error FC103: stopped by the operator" in capsys.readouterr().err
