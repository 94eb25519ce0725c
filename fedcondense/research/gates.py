"""What the gates of a simulation said, read from what its sites keep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedcondense.config.study import Study
from fedcondense.files.storage import read_json
from fedcondense.research.gate_schema import Gate, SiteGate
from fedcondense.research.run_root import RunRoot
from fedcondense.server.run_directory import RunDirectory
from fedcondense.site.state import RoundState


@dataclass(frozen=True)
class Tally:
    """What one audit came to at so many sites; no word where it was never written down."""

    verdict: str
    sites: int


def gate_of(state: RoundState, below: Path) -> Gate | None:
    """What the gate said of the set that a site keeps; None if it was never asked.

    `below` is the folder that the path of the site's page begins in.
    """
    if not state.has_record():
        return None
    record = state.record()
    return Gate(
        purpose=record["purpose"],
        problems=tuple(record["refusals"]),
        audits=record["audits"],
        statement=record["statement"],
        page=state.page.absolute().relative_to(below.absolute()).as_posix(),
    )


def states_of(site: Path, study: Study) -> list[RoundState]:
    """What a site keeps of each round of a study, oldest first."""
    return [RoundState(site, study.digest, number) for number in range(1, study.rounds + 1)]


def newest_gate(states: Iterable[RoundState], below: Path) -> Gate | None:
    """What the gate said in the newest of a site's rounds, given oldest first, that it has seen."""
    gates = [gate_of(state, below) for state in states]
    return next((gate for gate in reversed(gates) if gate is not None), None)


def gates_of_failure(root: RunRoot, seeds: tuple[int, ...]) -> Iterator[SiteGate]:
    """The gate's answers to the sites of a simulation that failed, as far as it came."""
    for seed in seeds:
        folder = root.repetition(seed)
        if not (folder / "sites.json").exists():
            continue
        study = RunDirectory(folder / "server").study()
        for name in read_json(folder / "sites.json"):
            gate = newest_gate(states_of(folder / "sites" / name, study), root.path)
            if gate is not None:
                yield SiteGate(name=name, seed=seed, gate=gate)


def tally(gates: Sequence[SiteGate], audit: str) -> Tally:
    """The gravest verdict of one audit over several sites, and how many have it."""
    verdicts = [site.gate.audits.get(audit, "") for site in gates]
    for word in ("refused", "passed", "not-run"):
        if word in verdicts:
            return Tally(word, verdicts.count(word))
    return Tally("", 0)
