"""A site and a site's client process die while they condense, in one deployed study.

The first site loses every process, and its operator gives `join` again; the second loses the
process that condenses alone. Both condense for real, so what they send depends on how they went on.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands_kit import HERE, LONGEST, Running
from deployment_kit import Consortium, Site, processes_of, wait_for
from paced_kit import CONDENSING, MIDST, STEPS, Pace, Point, machine_of, paced_consortium

from fedcondense.config.site import load_site
from fedcondense.exchange.sealing import Opened
from fedcondense.files.storage import read_json
from fedcondense.server.aggregate import aggregate, read_global_set
from fedcondense.server.current_run import CurrentRun, study_of
from fedcondense.site.contribute import preview
from fedcondense.site.journal import read_journal
from fedcondense.site.state import RoundState

pytestmark = pytest.mark.e2e
CLIENT = "fedcondense.flower.installed_app"
INTERRUPTED = [*range(1, MIDST + 1), *range(MIDST, STEPS + 1)]  # the state of MIDST was not kept


@dataclass(frozen=True)
class Killed:
    """A study that has ended, and what was printed by then."""

    consortium: Consortium
    codes: list[int]
    server: str
    joins: dict[str, str]

    @property
    def run(self) -> CurrentRun:
        found = self.consortium.current()
        assert found is not None
        return found

    def state(self, name: str) -> RoundState:
        return RoundState(self.consortium.sites[name].folder, self.run.study.digest, 1)

    def steps(self, name: str) -> list[int]:
        """All steps of the condensation that a site's journal tells of."""
        told = read_journal(self.state(name).journal)
        return [step.done for step in told if step.stage == CONDENSING]


def begin(site: Site) -> Running:
    settings = str(site.folder / "site.toml")
    log = site.folder / "join.log"
    return machine_of(site.folder).begin("site", "join", settings, log=log)


def kill(processes: Iterable[int]) -> None:
    """All at once, so that none of them can clear up after another."""
    found = list(processes)
    assert found, "nobody is there to be killed"
    for process in found:
        os.kill(process, signal.SIGKILL)


def client_of(site: Site) -> list[int]:
    return [pid for pid, line in processes_of(site.folder).items() if CLIENT in line]


def play(consortium: Consortium, running: dict[str, Running]) -> None:
    """Kill in the midst of both condensations, and see to it that all can end."""
    first, second = consortium.sites.values()
    paces = [Pace(site.folder) for site in (first, second)]
    for pace in paces:
        pace.wait_at(Point.STEP)
    wait_for(lambda: all(pace.is_waiting() for pace in paces), LONGEST)
    kill(processes_of(first.folder))
    kill(client_of(second))
    running["site-1"].ended(10)
    wait_for(lambda: not processes_of(first.folder), 10)
    for pace in paces:
        pace.go_on()
    running["site-1"] = begin(first)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    folder = tmp_path_factory.mktemp("killed")
    consortium = paced_consortium(folder)
    settings = str(folder / "SERVER.toml")
    running = {"server": HERE.begin("server", "run", settings, log=folder / "run.log")}
    running |= {name: begin(site) for name, site in consortium.sites.items()}
    try:
        play(consortium, running)
        codes = [one.ended() for one in running.values()]
    finally:
        for one in running.values():
            one.stop()
    said = {name: one.said() for name, one in running.items()}
    return Killed(consortium, codes, said.pop("server"), said)


def test_the_study_ends_and_both_sites_are_told(killed: Killed) -> None:
    assert killed.codes == [0, 0, 0], killed.server + "".join(killed.joins.values())
    assert "2 of 2 sites were told that the study is over" in killed.server
    wait_for(lambda: not processes_of(killed.consortium.office.folder), 20)


def test_a_killed_site_that_joins_again_goes_on_from_its_last_checkpoint(killed: Killed) -> None:
    assert killed.joins["site-1"].count("SuperNode started") > 1
    assert killed.steps("site-1") == INTERRUPTED
    assert not killed.state("site-1").checkpoint.exists()


def test_a_killed_client_process_is_followed_by_one_that_goes_on(killed: Killed) -> None:
    assert killed.joins["site-2"].count("SuperNode started") == 1
    assert killed.steps("site-2") == INTERRUPTED


def test_what_killed_sites_give_is_what_undisturbed_ones_do(killed: Killed, tmp_path: Path) -> None:
    study = study_of(killed.consortium.office.config)
    undisturbed = []
    for name, site in killed.consortium.sites.items():
        config = load_site(site.folder / "site.toml")
        elsewhere = config.model_copy(update={"state": tmp_path / name})
        released = preview(elsewhere, study, round=1)
        undisturbed.append(Opened(name, released.payload, released.record))

    run = killed.run.run
    sent = read_json(run.verdicts(1))["sites"]
    assert {name: of["payload_sha256"] for name, of in sent.items()} == {
        opened.site: opened.payload.sha256 for opened in undisturbed
    }
    assert read_global_set(run.global_set(1)).sha256 == aggregate(undisturbed, study).sha256
