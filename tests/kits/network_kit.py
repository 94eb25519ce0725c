"""Machines of a consortium on one kernel, each in a network namespace of its own.

A cable joins each site to the server. Whatever is sent to any other address falls into a trap: an
interface that leads nowhere and counts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from commands_kit import Machine

SERVER, SITES = "10.77.0.1", "10.77.0.{}"
ELSEWHERE = "192.0.2.1"  # nobody's address (RFC 5737)
TRAP, TRAP_END = "trap", "nowhere"
LISTENING = "0A"  # a state in /proc/net/tcp
MAPPED = "0000000000000000FFFF0000"  # before an IPv4 address in IPv6's table
LOOPBACK = "00000000000000000000000001000000"  # ::1; in IPv4 all that ends with 7F
LONGEST = 10.0  # seconds until a namespace is there
Room = subprocess.Popen[bytes]


@contextmanager
def machines(sites: int) -> Iterator[list[Machine]]:
    """The server's machine and those of so many sites.

    Raises:
        OSError: the kernel has no such namespaces, or not for this user.
    """
    with ExitStack() as stack:
        server = _room(stack, "unshare", "--user", "--map-root-user", "--net")
        found = [Machine(SERVER, _entry(server))]
        for number in range(1, sites + 1):
            site = _room(stack, *_entry(server), "unshare", "--net")
            found.append(Machine(SITES.format(number + 1), _entry(site)))
            _join(found[0], found[-1], number, site.pid)
        for machine in found:
            _set_trap(machine)
        yield found


def listening(machine: Machine) -> set[str]:
    """Where it listens on other addresses than loopback: hex address and port."""
    lines = _run(machine, "cat", "/proc/net/tcp", "/proc/net/tcp6").splitlines()
    rows = [line.split() for line in lines]
    local = {row[1] for row in rows if row[3] == LISTENING}
    return {place for place in local if not _is_loopback(place)}


def trapped(machine: Machine) -> int:
    """How many packets it sent to anywhere but the server and the sites."""
    [link] = json.loads(_run(machine, "ip", "-s", "-j", "link", "show", TRAP))
    return int(link["stats64"]["tx"]["packets"])


def bytes_carried(server: Machine, sites: int) -> tuple[int, int]:
    """What the server's ends of all cables have sent and received, frames included."""
    cables = {f"site{number}" for number in range(1, sites + 1)}
    links = json.loads(_run(server, "ip", "-s", "-j", "link", "show"))
    counted = [link["stats64"] for link in links if link["ifname"] in cables]
    return sum(of["tx"]["bytes"] for of in counted), sum(of["rx"]["bytes"] for of in counted)


def bytes_taken(server: Machine, number: int) -> int:
    """What the server has received from one site; a look takes no time, so a moment can be hit."""
    [*_, room] = [
        server.enter[at + 1] for at, word in enumerate(server.enter) if word == "--target"
    ]
    lines = (Path("/proc") / room / "net" / "dev").read_text().splitlines()
    [counted] = [line for line in lines if line.strip().startswith(f"site{number}:")]
    return int(counted.partition(":")[2].split()[0])


def cut(server: Machine, number: int) -> None:
    """Take a site's cable out; whatever is on its way is lost, and nobody is told."""
    _run(server, "ip", "link", "set", f"site{number}", "down")


def mend(server: Machine, number: int) -> None:
    """Put it in again."""
    _switch_on(server, f"site{number}")


def knock_elsewhere(machine: Machine) -> None:
    """Try to connect to an address that is none of the consortium's."""
    code = f"import socket; socket.socket().connect_ex(({ELSEWHERE!r}, 443))"
    with suppress(subprocess.TimeoutExpired):
        _run(machine, sys.executable, "-c", code)


def _room(stack: ExitStack, *command: str) -> Room:
    """A process whose namespaces others enter, for as long as the stack lasts."""
    room = subprocess.Popen([*command, "sleep", "infinity"], stderr=subprocess.DEVNULL)
    stack.callback(room.wait)
    stack.callback(room.kill)
    until = time.monotonic() + LONGEST
    while (Path("/proc") / str(room.pid) / "comm").read_text() != "sleep\n":
        if room.poll() is not None or time.monotonic() > until:
            raise OSError("no network namespace can be made here")
        time.sleep(0.05)
    return room


def _entry(room: Room) -> tuple[str, ...]:
    whose = ("--target", str(room.pid))
    return ("nsenter", *whose, "--user", "--net", "--preserve-credentials")


def _join(server: Machine, site: Machine, number: int, process: int) -> None:
    """A cable between two rooms; each end is told the other's address and no more."""
    cable = f"site{number}"
    peer = ("peer", "name", "server", "netns", str(process))
    _run(server, "ip", "link", "add", "name", cable, "type", "veth", *peer)
    for here, there, name in ((server, site, cable), (site, server, "server")):
        _run(here, "ip", "address", "add", here.address, "peer", there.address, "dev", name)
        _switch_on(here, name)


def _set_trap(machine: Machine) -> None:
    """Where the default route leads; without an address its ends send nothing by themselves."""
    _run(machine, "ip", "link", "add", "name", TRAP, "type", "veth", "peer", "name", TRAP_END)
    for name in (TRAP, TRAP_END):
        _run(machine, "ip", "link", "set", name, "addrgenmode", "none")
    for name in ("lo", TRAP, TRAP_END):
        _switch_on(machine, name)
    _run(machine, "ip", "route", "add", "default", "dev", TRAP)


def _switch_on(machine: Machine, name: str) -> None:
    _run(machine, "ip", "link", "set", name, "up")


def _is_loopback(place: str) -> bool:
    """Whether a place as /proc/net/tcp writes it is of this machine alone."""
    address = place.partition(":")[0].removeprefix(MAPPED)
    return address == LOOPBACK or (len(address) == 8 and address.endswith("7F"))


def _run(machine: Machine, *command: str) -> str:
    """What a command prints there.

    Raises:
        OSError: it failed, or is not installed.
    """
    whole = [*machine.enter, *command]
    ran = subprocess.run(whole, capture_output=True, text=True, timeout=LONGEST, check=False)
    if ran.returncode != 0:
        raise OSError(f"{' '.join(command[:2])}: {ran.stderr.strip()}")
    return ran.stdout
