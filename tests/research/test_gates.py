"""What a report says of the gate is what the sites' own records say, and no figure of an audit."""

from __future__ import annotations

from pathlib import Path

import torch

from fedcondense.config.loading import parse_settings
from fedcondense.config.scenario import Scenario
from fedcondense.data.dataset import LabeledImages
from fedcondense.research.gate_schema import Gate, SiteGate
from fedcondense.research.gates import Tally, gate_of, gates_of_failure, newest_gate, tally
from fedcondense.research.hospitals import Consortium, build_consortium
from fedcondense.research.run_root import RunRoot

SCENARIO = parse_settings(
    Scenario,
    {
        "name": "toy",
        "distill": {"method": "idm"},
        "image": {"size": 16},
        "network": {"depth": 2},
        "images": {"kind": "phantoms"},
    },
    "toy.toml",
)
STUDY = SCENARIO.study(("a", "b"), 2, 3)
RECORD = {
    "purpose": "release",
    "refusals": ["real-start", "audit-memorisation"],
    "audits": {"provenance": "refused", "memorisation": "refused", "membership": "not-run"},
    "statement": "Contains 4 synthetic images optimised from 2 records; started from real images.",
    "declared": {"images": 2, "patients": 2},
}


def images() -> LabeledImages:
    pixels = torch.zeros((2, 1, 16, 16), dtype=torch.uint8)
    return LabeledImages(pixels, torch.tensor([0, 1]), ("a", "b"), ("p", "q"), None, None)


def played(root: RunRoot) -> Consortium:
    """The sites of seed 3, at the moment when they were asked."""
    parts = {"site-1": images(), "site-2": images()}
    return build_consortium(root.repetition(3), SCENARIO, STUDY, parts)


def test_a_gate_that_was_never_asked_has_said_nothing(tmp_path: Path) -> None:
    site = played(RunRoot(tmp_path)).state("site-1", STUDY, 1)

    assert gate_of(site, tmp_path) is None


def test_a_gate_is_told_in_the_words_of_the_record_with_the_way_to_the_page(
    tmp_path: Path,
) -> None:
    site = played(RunRoot(tmp_path)).state("site-1", STUDY, 1)
    site.keep_record(RECORD)

    gate = gate_of(site, tmp_path)

    assert gate is not None
    assert gate.problems == ("real-start", "audit-memorisation")
    assert gate.audits == RECORD["audits"]
    assert gate.statement == RECORD["statement"]
    assert gate.page.startswith("seed-3/sites/site-1/")
    assert tmp_path / gate.page == site.page


def test_of_several_rounds_the_newest_that_the_gate_has_seen_is_told(tmp_path: Path) -> None:
    consortium = played(RunRoot(tmp_path))
    states = [consortium.state("site-1", STUDY, round) for round in (1, 2, 3)]
    states[0].keep_record(RECORD)
    states[1].keep_record(RECORD | {"refusals": []})

    gate = newest_gate(states, tmp_path)

    assert gate is not None
    assert gate.problems == ()
    assert newest_gate(states[2:], tmp_path) is None


def test_of_a_failed_simulation_the_sites_that_came_to_their_gate_are_told(tmp_path: Path) -> None:
    root = RunRoot(tmp_path)
    played(root).state("site-2", STUDY, 1).keep_record(RECORD)

    gates = list(gates_of_failure(root, (3, 4)))

    assert [(site.name, site.seed) for site in gates] == [("site-2", 3)]
    assert gates[0].gate.audits["memorisation"] == "refused"


def test_a_simulation_that_failed_before_it_had_sites_tells_of_none(tmp_path: Path) -> None:
    assert list(gates_of_failure(RunRoot(tmp_path), (3,))) == []


def test_of_several_sites_the_gravest_verdict_is_told() -> None:
    words = ("passed", "not-run", "refused", "refused")
    gates = [
        SiteGate(name="x", seed=0, gate=Gate(purpose="release", audits={"memorisation": word}))
        for word in words
    ]

    assert tally(gates, "memorisation") == Tally("refused", 2)
    assert tally(gates[:2], "memorisation") == Tally("passed", 1)
    assert tally(gates[1:2], "memorisation") == Tally("not-run", 1)
    assert tally(gates, "membership") == Tally("", 0)
