"""`join` as a process: it starts again what dies, and leaves nothing behind when it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from joined_kit import Hospital, Joined, eventually, hospital, superlink

from fedcondense.config.site import load_site
from fedcondense.flower.processes import MARK, family
from fedcondense.flower.site_status import site_status

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc"),
]


@pytest.fixture
def lakeside(tmp_path: Path) -> Hospital:
    """A hospital whose server is away: its SuperNode goes on trying."""
    return hospital(tmp_path / "lakeside")


@pytest.fixture
def joined(lakeside: Hospital) -> Iterator[Joined]:
    with Joined(lakeside) as joined:
        joined.says("SuperNode started")
        yield joined


def commands() -> dict[int, str]:
    """Process → its command line, of all that live."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    return found


def supernode(site: Hospital) -> int | None:
    """The process of the site's SuperNode."""
    ours = [p for p, line in commands().items() if f"'{site.settings}'" in line]
    return ours[0] if ours else None


def mark_of(process: int) -> str:
    """The mark that all processes started with it carry."""
    environment = (Path("/proc") / str(process) / "environ").read_text()
    match = re.search(rf"{MARK}=(\w+)", environment)
    assert match is not None
    return match[1]


def superexec(mark: str) -> int | None:
    """The superexec of the SuperNode with this mark."""
    lines = commands()
    found = [p for p in family(mark) if "flower-superexec" in lines.get(p, "")]
    return found[0] if found else None


def running(site: Hospital) -> tuple[int, str]:
    """The SuperNode's process and mark, once it has its superexec."""
    eventually(lambda: supernode(site) and superexec(mark_of(supernode(site))), 60, "superexec")
    process = supernode(site)
    assert process is not None
    return process, mark_of(process)


def test_a_killed_supernode_is_started_again_and_its_children_are_gone(
    lakeside: Hospital, joined: Joined
) -> None:
    process, mark = running(lakeside)

    os.kill(process, signal.SIGKILL)

    joined.says("the SuperNode ended with exit code -9; trying again in 2 s")
    joined.says("SuperNode started", times=2)
    assert family(mark) == set()
    assert supernode(lakeside) not in (None, process)
    status = site_status(load_site(lakeside.settings))
    assert status.join is not None
    assert status.healthy
    assert (status.join.restarts, status.join.last_exit[:29]) == (
        1,
        "the SuperNode ended with exit",
    )


def test_a_supernode_without_its_superexec_is_started_again(
    lakeside: Hospital, joined: Joined
) -> None:
    _, mark = running(lakeside)

    os.kill(superexec(mark) or 0, signal.SIGKILL)

    joined.says("the SuperNode lost its superexec; trying again in", seconds=90)
    joined.says("SuperNode started", times=2)
    assert family(mark) == set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_everything_it_started(
    lakeside: Hospital, joined: Joined, number: signal.Signals
) -> None:
    _, mark = running(lakeside)

    joined.process.send_signal(number)

    assert joined.process.wait(40) == 0
    assert joined.said().endswith("stopped\n")
    assert family(mark) == set()
    assert supernode(lakeside) is None
    assert not site_status(load_site(lakeside.settings)).supervised
    assert not (lakeside.state / "flower" / "home").exists()


def test_a_killed_supervisor_leaves_no_orphan(lakeside: Hospital, joined: Joined) -> None:
    _, mark = running(lakeside)

    joined.process.kill()
    joined.process.wait()

    eventually(lambda: not family(mark), 30, "the end of all processes")
    assert not site_status(load_site(lakeside.settings)).healthy


def test_systemd_hears_that_it_is_ready_and_that_it_stops(
    lakeside: Hospital, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(90)
        with Joined(lakeside, NOTIFY_SOCKET=str(tmp_path / "notify")) as joined:
            assert manager.recv(100) == b"READY=1"
            assert joined.end() == 0
            assert manager.recv(100) == b"STOPPING=1"


def test_a_site_that_is_not_enrolled_says_so_and_joins_once_it_is(tmp_path: Path) -> None:
    with superlink(tmp_path / "link") as link:
        site = hospital(tmp_path / "lakeside")
        server = {"address": link.address, "authority": str(link.tls.authority)}
        site.change(server=server)
        with Joined(site) as joined:
            joined.says("the server refused the node key: not enrolled", seconds=90)

            link.register(site.node_public)

            joined.says("connected\n", seconds=90)
            assert joined.end() == 0
            # signed off, so that the server takes it back at once
            with Joined(site) as again:
                again.says("connected\n", times=2, seconds=90)
                assert "trying again" not in again.said().rpartition("stopped")[2]
