"""Hospitals with DICOM archives, deployed: patients in file names and tags, and nowhere else."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands_kit import EVALUATION, HOSPITAL, Machine, Server, Site, all_begun, mentions
from dicom_kit import PLANTED, write_dicom

from fedcondense.config.site import Phantoms
from fedcondense.data.phantoms import draw_phantoms

pytestmark = pytest.mark.e2e
SECRETS = (*PLANTED, HOSPITAL)
STUDY = {
    "name": "films",
    "classes": ["COVID", "Lung_Opacity"],
    "images_per_class": 2,
    "quorum": 1,
    "image": {"size": 16},
    "network": {"width": 8, "depth": 2},
    "distill": {"method": "idm", "iterations": 3},
    "evaluation": {"networks": 1, "steps": 10, "resamples": 100},
}


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
    server = Server(folder / "office", Machine("127.0.0.2"))
    server.found(STUDY, evaluation=EVALUATION)
    good, broken = (Site(folder / HOSPITAL / name) for name in ("good", "broken"))
    for site, number in ((good, 80), (broken, 8)):
        table = write_films(films_of(site), number)
        images = {"kind": "csv", "path": str(table)}
        site.settle(server, images=images, release={"min_patients_per_class": 2})
    [*_, last] = sorted(films_of(broken).glob("*.dcm"))
    last.write_bytes(last.read_bytes()[:-100])
    with all_begun(server, good, broken) as (serving, *joined):
        codes = (serving.ended(), *(one.ended() for one in joined))
    return Archives(server, good, broken, codes)


def films_of(site: Site) -> Path:
    """A site's archive, named after a patient."""
    return site.folder.parent / PLANTED[2] / site.name


def write_films(folder: Path, number: int) -> Path:
    """A CSV of so many DICOM films of each of the two classes, with patients in names and tags."""
    drawn = draw_phantoms(Phantoms(kind="phantoms", images_per_class=number))
    rows = ["path,label,patient_id"]
    for row, label in enumerate(drawn.labels.tolist()):
        if drawn.classes[label] in STUDY["classes"]:
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
    assert {word for _, word in mentions(films_of(archives.good), PLANTED)} == set(PLANTED)
    assert mentions(archives.server.folder, SECRETS) == []
    for site in (archives.good, archives.broken):
        assert [word for word in SECRETS if word in site.log.read_text()] == []
        for log in ("errors.log", "flower/supernode.log"):
            kept = site.folder / "state" / log
            text = kept.read_text() if kept.exists() else ""
            assert [word for word in PLANTED if word in text] == []
