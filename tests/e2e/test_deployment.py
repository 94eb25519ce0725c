"""The whole product as hospitals deploy it: every command as a process, and nothing stands in.

The same study is played on one machine first; what its sites were given, the deployed ones get.
Where the kernel has network namespaces, server and sites have machines and addresses of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands_kit import (
    EVALUATION,
    HERE,
    HOSPITAL,
    LONGEST,
    Machine,
    Running,
    Server,
    Site,
    all_begun,
    mentions,
    read_toml,
    union_of,
)
from deployment_kit import processes_of, wait_for
from dicom_kit import PLANTED
from network_kit import knock_elsewhere, listening, machines, trapped
from simulate_kit import simulate, write_scenario

pytestmark = pytest.mark.e2e
SCENARIO: dict[str, Any] = {
    "name": "deployed",
    "rounds": 2,
    "images": {"images_per_class": 225},
    "distill": {"iterations": 3},
    "partition": {"sites": 3},
}
SECRETS = (*PLANTED, HOSPITAL)
ROUNDS = (1, 2)
PAGE = Path(__file__).parents[2] / "docs" / "how-to-run-a-server.md"


@dataclass(frozen=True)
class Played:
    """A study that was simulated and deployed; `listening` is where each party did, if known."""

    simulated: Path
    server: Server
    sites: list[Site]
    codes: list[int]
    listening: list[set[str]]


@pytest.fixture(scope="module")
def places() -> Iterator[list[Machine]]:
    """Machines for a server and three sites: namespaces, or loopback addresses."""
    with ExitStack() as stack:
        found = [Machine("127.0.0.2"), HERE, HERE, HERE]
        with suppress(OSError):
            found = stack.enter_context(machines(sites=3))
        yield found


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, places: list[Machine]) -> Played:
    folder = tmp_path_factory.mktemp("deployment")
    simulated = play(folder)
    server = Server(folder / "office", places[0])
    study = read_toml(simulated / "server" / "study.toml")
    server.found(study, evaluation=EVALUATION)
    names = json.loads((simulated / "sites.json").read_bytes())
    sites = [Site(folder / HOSPITAL / name, at) for name, at in zip(names, places[1:], strict=True)]
    for site in sites:
        settle_as(simulated / "sites" / site.name, server, site)
    with all_begun(server, *sites) as running:
        wait_for(lambda: all(has_begun(one) for one in running[1:]), LONGEST)
        found = [listening(machine) for machine in places if machine.enter]
        codes = [one.ended() for one in running]
    return Played(simulated, server, sites, codes, found)


def has_begun(site: Running) -> bool:
    """Whether a site is in the midst of the study, or has failed."""
    return "query.hello" in site.said() or site.process.poll() is not None


def play(folder: Path) -> Path:
    """Play the scenario on one machine; the directory of its only repetition."""
    out = folder / "simulated"
    ran = simulate(write_scenario(folder, **SCENARIO), out)
    assert ran.returncode == 0, ran.stderr
    return out / "seed-0"


def settle_as(simulated: Path, server: Server, site: Site) -> None:
    """Give a hospital images, seed and policy of a simulated one, and patients' names."""
    like = read_toml(simulated / "site.toml")
    archive = site.folder.parent / PLANTED[1] / f"{PLANTED[0]}-{site.name}.npz"
    archive.parent.mkdir(parents=True, exist_ok=True)
    with np.load(simulated / "images.npz") as arrays:
        names = [f"{PLANTED[0]} {PLANTED[2]} {group}" for group in arrays["group"]]
        np.savez(archive, **arrays, patient_id=np.array(names))
    values = {key: like[key] for key in ("seed", "release", "declared")}
    site.settle(server, images={"kind": "npz", "path": str(archive)}, **values)


def test_server_and_sites_end_by_themselves(played: Played) -> None:
    said = [party.log.read_text() for party in (played.server, *played.sites)]

    assert played.codes == [0, 0, 0, 0], "\n".join(said)
    assert "3 of 3 sites were told that the study is over" in said[0]
    assert all("the study is over; `fedcondense-site status` says" in text for text in said[1:])
    wait_for(lambda: not processes_of(played.server.folder.parent), 20)


def test_deployed_and_simulated_sites_give_the_same_global_sets(played: Played) -> None:
    deployed = [played.server.union(number) for number in ROUNDS]

    assert deployed == [union_of(played.simulated / "server", number) for number in ROUNDS]
    assert deployed[0] != deployed[1]


def test_every_site_keeps_the_signed_result_of_each_round(played: Played) -> None:
    for number in ROUNDS:
        for site in played.sites:
            kept = json.loads(site.kept("global/result.json", number).read_bytes())
            assert kept["result"]["set_sha256"] == played.server.union(number)


def test_what_a_site_sent_is_what_its_gate_let_pass(played: Played) -> None:
    for number in ROUNDS:
        verdicts = json.loads(
            (played.server.run / f"round-{number:03d}/verdicts.json").read_bytes()
        )
        for site in played.sites:
            record = json.loads(site.kept("release-record.json", number).read_bytes())
            assert (record["verdict"], record["purpose"]) == ("passed", "release")
            sent = verdicts["sites"][site.name]
            assert (sent["verdict"], sent["payload_sha256"]) == (
                "accepted",
                record["payload_sha256"],
            )


def test_the_report_shows_both_rounds_and_the_opening_key_is_gone(played: Played) -> None:
    report = json.loads((played.server.run / "report.json").read_bytes())

    assert [of["round"] for of in report["rounds"]] == [1, 2]
    assert [of["global_set"]["sha256"] for of in report["rounds"]] == [
        played.server.union(number) for number in ROUNDS
    ]
    assert (played.server.run / "report.html").exists()
    assert not list((played.server.folder / "keys").glob("opening-*"))


def test_the_run_directory_holds_what_the_page_says(played: Played) -> None:
    page = PAGE.read_text(encoding="utf-8")
    listing = page.partition("runs/chest-20261121T090000Z/\n")[2].partition("```")[0]
    named = {line.split()[0] for line in listing.splitlines()} - {"round-001/rejections.json"}

    assert len(named) > 6
    assert [name for name in named if not (played.server.run / name).exists()] == []


def test_both_sides_can_ask_how_it_ended(played: Played) -> None:
    server = played.server.give("status")

    assert "finished" in server
    assert all(site.name in server for site in played.sites)
    assert "report: " in played.server.give("report")


def test_no_patient_and_no_path_of_a_site_is_at_the_server(played: Played) -> None:
    [site, *_] = played.sites

    assert mentions(site.folder.parent, [PLANTED[0]]), "the search finds nothing anywhere"
    assert mentions(played.server.folder, SECRETS) == []


def test_no_patient_and_no_path_is_in_what_join_says(played: Played) -> None:
    for site in played.sites:
        assert [word for word in SECRETS if word in site.log.read_text()] == []
        flower = (site.folder / "state/flower/supernode.log").read_text()
        assert [word for word in PLANTED if word in flower] == []


def test_only_the_server_listens_and_on_one_port(played: Played) -> None:
    if not played.listening:
        pytest.skip("no network namespaces here: all share one machine")
    server, *sites = played.listening

    assert {int(place.rpartition(":")[2], 16) for place in server} == {played.server.port}
    assert sites == [set(), set(), set()]


def test_nothing_is_sent_to_anywhere_but_between_server_and_sites(
    played: Played, places: list[Machine]
) -> None:
    if not played.listening:
        pytest.skip("no network namespaces here: all share one machine")
    sent = [trapped(machine) for machine in places]

    knock_elsewhere(places[1])

    assert sent == [0, 0, 0, 0]
    assert trapped(places[1]) > 0, "the trap catches nothing"
