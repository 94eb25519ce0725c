"""What a deployment costs besides condensing: time, bytes on the wire, memory of each process.

    make deployment                       # three sites, two rounds
    make deployment SITES=20 GROUP=5      # twenty, five at a time

Server and sites are their own commands as processes, with TLS, enrolment, audits and gate; their
images are phantoms and their sets tiny, so that what is left is the frame. Each has a network
namespace of its own where the kernel allows it, and only then are bytes on the wire counted.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from commands_kit import EVALUATION, HERE, LONGEST, Machine, Running, Server, Site, all_begun
from deployment_kit import processes_of, wait_for
from network_kit import bytes_carried, machines

from fedcondense.config.loading import parse_settings
from fedcondense.config.scenario import Scenario
from fedcondense.data.phantoms import PHANTOM_CLASSES
from fedcondense.files.environment import this_environment

ROUNDS = 2
IMAGES = 75  # of each class at a site
TINY: dict[str, Any] = {
    "name": "frame",
    "rounds": ROUNDS,
    "images_per_class": 2,
    "images": {"kind": "phantoms"},
    "image": {"size": 16},
    "network": {"width": 8, "depth": 2},
    "distill": {"method": "idm", "iterations": 3},
    "evaluation": {"networks": 1, "steps": 10, "resamples": 100},
}
KINDS = {
    "fedcondense.flower.installed_app": "site: client process",
    "fedcondense.cli.site": "site: join",
    "flower-supernode": "site: SuperNode",
    "fedcondense.cli.server": "server: run",
    "fedcondense.flower.superlink_process": "server: SuperLink",
    "flwr-serverapp": "server: ServerApp",
    "flower-superexec": "superexec",
}


class Memory(threading.Thread):
    """The most that each kind of process, and all together, ever held, in MB."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.over = folder, threading.Event()
        self.highest: dict[str, float] = {}
        self.together = 0.0

    def run(self) -> None:
        """Look twice a second; what all share is counted once in the sum."""
        while not self.over.wait(0.5):
            found = processes_of(self.folder)
            for pid, command in found.items():
                kind = next((name for part, name in KINDS.items() if part in command), "other")
                held = _megabytes(Path("/proc") / str(pid) / "status", "VmHWM")
                self.highest[kind] = max(held, self.highest.get(kind, 0.0))
            shares = (_megabytes(Path("/proc") / str(p) / "smaps_rollup", "Pss") for p in found)
            self.together = max(self.together, sum(shares))


def _megabytes(path: Path, key: str) -> float:
    with suppress(OSError):
        if match := re.search(rf"^{key}:\s+(\d+) kB", path.read_text(), re.MULTILINE):
            return int(match[1]) * 1024 / 1e6
    return 0.0


@contextmanager
def places(sites: int) -> Iterator[list[Machine]]:
    """Machines for a server and its sites: namespaces, or loopback addresses."""
    with ExitStack() as stack:
        found = [Machine("127.0.0.2"), *[HERE] * sites]
        with suppress(OSError):
            found = stack.enter_context(machines(sites))
        yield found


def settled(folder: Path, at: Sequence[Machine]) -> tuple[Server, list[Site]]:
    """A server and enrolled sites, each with phantoms of its own."""
    sites = len(at) - 1
    scenario = parse_settings(Scenario, TINY | {"quorum": sites}, "frame")
    study = scenario.study(PHANTOM_CLASSES, sites, 0).model_dump(mode="json", exclude_none=True)
    server = Server(folder / "office", at[0])
    server.found(study, evaluation=EVALUATION)
    found = [Site(folder / f"site-{n}", machine) for n, machine in enumerate(at[1:], 1)]
    for number, site in enumerate(found, 1):
        images = {"kind": "phantoms", "images_per_class": IMAGES, "seed": number}
        release = {"min_patients_per_class": 2}
        declared = {"images": IMAGES * len(PHANTOM_CLASSES)}
        site.settle(server, images=images, release=release, declared=declared)
    return server, found


def played(server: Server, sites: Sequence[Site], group: int) -> None:
    """Run the study to its end; each group of sites comes when the one before it is connected."""
    with all_begun(server) as running, ExitStack() as stack:
        for first in range(0, len(sites), group):
            joined = stack.enter_context(all_begun(*sites[first : first + group]))
            wait_for(lambda these=joined: all(map(is_connected, these)), LONGEST)
            running += joined
        if any(one.ended(2 * LONGEST) for one in running):
            raise SystemExit(server.log.read_text())


def is_connected(site: Running) -> bool:
    """Whether a site has been asked something, or has failed."""
    return "query." in site.said() or site.process.poll() is not None


def print_times(server: Server, sites: Sequence[Site], began: float) -> None:
    """Of each round, what of it was work at a site and what the frame."""
    events = [json.loads(line) for line in (server.run / "events.jsonl").read_text().splitlines()]
    print("\n| round | asked | first contribution | last one | work of a site | rest | concluded |")
    print("|---|---|---|---|---|---|---|")
    for number in range(1, ROUNDS + 1):
        asked, over = (
            next(e["time"] - began for e in events if _is(e, word, number))
            for word in ("asking", "concluded")
        )
        stored = (server.run / f"round-{number:03d}" / "sealed").glob("*.sealed")
        came = sorted(path.stat().st_mtime - began for path in stored)
        work = max(seconds_of_work(site, number) for site in sites)
        times = (asked, came[0], came[-1], work, came[-1] - asked - work, over)
        print(f"| {number} | " + " | ".join(f"{seconds:.0f} s" for seconds in times) + " |")


def _is(event: dict[str, Any], word: str, number: int) -> bool:
    return event["event"] == word and event.get("round") == number


def seconds_of_work(site: Site, number: int) -> float:
    """Reading, condensing and auditing, as the site's own log tells it."""
    lines = site.kept("log.jsonl", number).read_text().splitlines()
    return float(json.loads(lines[-1])["seconds"])


def main() -> None:
    """Play one study and print its figures as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--group", type=int, default=0, help="sites that start together; 0: all")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, places(asked.sites) as at:
        server, sites = settled(Path(scratch), at)
        memory, began = Memory(Path(scratch)), time.time()
        memory.start()
        played(server, sites, asked.group or asked.sites)
        memory.over.set()
        environment = this_environment("cpu", threads=1)
        print(f"{asked.sites} sites on {environment.cpu}, {environment.date}")
        print_times(server, sites, began)
        print(f"| all | | | | | | {time.time() - began:.0f} s |")
        sealed = sum(path.stat().st_size for path in server.run.glob("round-*/sealed/*.sealed"))
        print(f"\nsealed {sealed / 1e3:,.0f} kB in {ROUNDS} rounds")
        if at[0].enter:
            sent, received = bytes_carried(at[0], asked.sites)
            print(
                f"on the wire: {received / 1e3:,.0f} kB to the server, {sent / 1e3:,.0f} kB from it"
            )
        print("\n| process | most memory of one, MB |\n|---|---|")
        for kind, held in sorted(memory.highest.items()):
            print(f"| {kind} | {held:,.0f} |")
        print(f"| all together at once, shared pages counted once | {memory.together:,.0f} |")


if __name__ == "__main__":
    main()
