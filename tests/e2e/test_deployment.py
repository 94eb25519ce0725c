"""The whole product as hospitals deploy it: every command as a process, and nothing stands in.

The same study is played on one machine first; what its sites were given, the deployed ones get.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from commands_kit import LONGEST, Server, Site, all_begun, mentions, read_toml, union_of
from deployment_kit import processes_of, wait_for
from dicom_kit import PLANTED, write_dicom

from fedcondense.config.site import Phantoms
from fedcondense.data.phantoms import draw_phantoms

pytestmark = pytest.mark.e2e
SIMULATE = Path(sys.executable).parent / "fedcondense-simulate"
SCENARIO = """
name = "deployed"
rounds = 2
images_per_class = 2
random_draws = 1
[images]
kind = "phantoms"
images_per_class = 225
[image]
size = 16
[network]
width = 8
depth = 2
[distill]
method = "idm"
iterations = 3
[evaluation]
networks = 1
steps = 10
resamples = 100
[partition]
kind = "even"
sites = 3
[site]
min_patients_per_class = 2
"""
EVALUATION = {"kind": "phantoms", "images_per_class": 8, "seed": 9}
HOSPITAL = "Klinikum-Musterstadt"  # stands in every path of the sites
SECRETS = (*PLANTED, HOSPITAL)
ROUNDS = (1, 2)


@dataclass(frozen=True)
class Played:
    """A study that was simulated and deployed."""

    simulated: Path
    server: Server
    sites: list[Site]
    codes: list[int]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder = tmp_path_factory.mktemp("deployment")
    simulated = simulate(folder)
    server = Server(folder / "office")
    study = read_toml(simulated / "server" / "study.toml")
    server.found(study, evaluation=EVALUATION)
    sites = [
        settle_as(simulated / "sites" / name, server, folder / HOSPITAL)
        for name in json.loads((simulated / "sites.json").read_bytes())
    ]
    with all_begun(server, *sites) as running:
        codes = [one.ended() for one in running]
    return Played(simulated, server, sites, codes)


def simulate(folder: Path) -> Path:
    """Play the scenario on one machine; the directory of its only repetition."""
    scenario, out = folder / "deployed.toml", folder / "simulated"
    scenario.write_text(SCENARIO)
    command = [str(SIMULATE), str(scenario), "--out", str(out)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)
    assert ran.returncode == 0, ran.stderr
    return out / "seed-0"


def settle_as(simulated: Path, server: Server, hospital: Path) -> Site:
    """A hospital with images, seed, policy and name of a simulated one, and patients' names."""
    site = Site(hospital / simulated.name)
    like = read_toml(simulated / "site.toml")
    archive = hospital / PLANTED[1] / f"{PLANTED[0]}-{simulated.name}.npz"
    archive.parent.mkdir(parents=True, exist_ok=True)
    with np.load(simulated / "images.npz") as arrays:
        names = [f"{PLANTED[0]} {PLANTED[2]} {group}" for group in arrays["group"]]
        np.savez(archive, **arrays, patient_id=np.array(names))
    values = {key: like[key] for key in ("seed", "release", "declared")}
    site.settle(server, images={"kind": "npz", "path": str(archive)}, **values)
    return site


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


@dataclass(frozen=True)
class Archives:
    """A study of two hospitals with DICOM archives; a film of the second cannot be read."""

    server: Server
    good: Site
    broken: Site
    codes: tuple[int, int, int]


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Archives:
    folder = tmp_path_factory.mktemp("archives")
    server = Server(folder / "office")
    server.found(DICOM_STUDY, evaluation=EVALUATION)
    good, broken = (Site(folder / HOSPITAL / name) for name in ("good", "broken"))
    for site, number in ((good, 80), (broken, 2)):
        site.settle(
            server,
            images={"kind": "csv", "path": str(write_films(site.folder / PLANTED[2], number))},
            release={"min_patients_per_class": 2},
        )
    [*_, last] = sorted((broken.folder / PLANTED[2]).glob("*.dcm"))
    last.write_bytes(last.read_bytes()[:-100])
    with all_begun(server, good, broken) as (serving, *joined):
        codes = (serving.ended(), *(one.ended() for one in joined))
    return Archives(server, good, broken, codes)


DICOM_STUDY = {
    "name": "films",
    "classes": ["COVID", "Lung_Opacity"],
    "images_per_class": 2,
    "quorum": 1,
    "image": {"size": 16},
    "network": {"width": 8, "depth": 2},
    "distill": {"method": "idm", "iterations": 3},
    "evaluation": {"networks": 1, "steps": 10, "resamples": 100},
}


def write_films(folder: Path, number: int) -> Path:
    """A CSV of so many DICOM films of each of the two classes, with patients in names and tags."""
    drawn = draw_phantoms(Phantoms(kind="phantoms", images_per_class=number))
    rows = ["path,label,patient_id"]
    for row, label in enumerate(drawn.labels.tolist()):
        if drawn.classes[label] in DICOM_STUDY["classes"]:
            film, patient = f"{PLANTED[0]}-{row:04d}.dcm", f"{PLANTED[2]}-{drawn.groups[row]}"
            write_dicom(folder / film, drawn.images[row, 0].numpy(), PatientID=patient)
            rows.append(f"{film},{drawn.classes[label]},{patient}")
    table = folder / "films.csv"
    table.write_text("\n".join(rows))
    return table


def test_a_study_of_dicom_archives_is_played_to_its_end(archives: Archives) -> None:
    said = archives.server.log.read_text()

    assert archives.codes == (0, 0, 0), said + archives.good.log.read_text()
    assert "train.contribute, round 1: sealed" in archives.good.log.read_text()
    assert "train.contribute, round 1: failed FC202" in archives.broken.log.read_text()
    report = json.loads((archives.server.run / "report.json").read_bytes())
    assert [site["name"] for site in report["sites"]] == ["good"]


def test_nothing_of_a_dicom_archive_is_at_the_server_or_in_what_join_says(
    archives: Archives,
) -> None:
    assert {word for _, word in mentions(archives.good.folder, PLANTED)} == set(PLANTED)
    assert mentions(archives.server.folder, SECRETS) == []
    for site in (archives.good, archives.broken):
        assert [word for word in SECRETS if word in site.log.read_text()] == []
        for log in ("errors.log", "flower/supernode.log"):
            kept = site.folder / "state" / log
            text = kept.read_text() if kept.exists() else ""
            assert [word for word in PLANTED if word in text] == []
