"""Under differential privacy: who is learned from follows from each record alone."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_kit import write_dicom
from PIL import Image

from fedcondense.config.loading import parse_settings
from fedcondense.config.privacy import Unit
from fedcondense.config.site import SiteConfig
from fedcondense.config.study import Study
from fedcondense.errors import DataError
from fedcondense.site.cohort import read_cohort

PATIENTS, FILMS = 12, 2  # so many of each
CLASSES = ("A", "B")
PIXELS = np.random.default_rng(5).integers(0, 256, (PATIENTS * FILMS, 16, 16)).astype(np.uint8)
LABELS = np.arange(len(PIXELS)) // FILMS % 2
OWNERS = [f"patient {row // FILMS}" for row in range(len(PIXELS))]
Rows = list[int]
Source = dict[str, Any]


def npz(folder: Path, rows: Rows, **texts: Any) -> Source:
    columns = {name: np.array([column[row] for row in rows]) for name, column in texts.items()}
    np.savez(
        folder / "a.npz",
        images=PIXELS[rows],
        labels=LABELS[rows],
        class_names=np.array(CLASSES),
        **columns,
    )
    return {"kind": "npz", "path": str(folder / "a.npz")}


def bare_npz(folder: Path, rows: Rows) -> Source:
    return npz(folder, rows)


def npz_of_patients(folder: Path, rows: Rows) -> Source:
    return npz(folder, rows, patient_id=OWNERS)


def grouped_npz(folder: Path, rows: Rows) -> Source:
    return npz(folder, rows, group=[f"of {name}" for name in OWNERS], patient_id=OWNERS)


def pngs(folder: Path, rows: Rows) -> Source:
    for row in rows:
        path = folder / f"films/{CLASSES[LABELS[row]]}/film {row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[row]).save(path)
    return {"kind": "folder", "path": str(folder / "films")}


def dicom(folder: Path, rows: Rows) -> Source:
    for row in rows:
        path = folder / f"films/{CLASSES[LABELS[row]]}/film {row}.dcm"
        write_dicom(path, PIXELS[row], PatientID=OWNERS[row])
    return {"kind": "folder", "path": str(folder / "films")}


def csv(folder: Path, rows: Rows, patients: list[str] = OWNERS) -> Source:
    pngs(folder, rows)
    lines = [
        f"films/{CLASSES[LABELS[row]]}/film {row}.png,{CLASSES[LABELS[row]]},{patients[row]}"
        for row in rows
    ]
    (folder / "films.csv").write_text("\n".join(["path,label,patient_id", *lines]) + "\n")
    return {"kind": "csv", "path": str(folder / "films.csv")}


def csv_of_dicom(folder: Path, rows: Rows) -> Source:
    """The first half of the patients in the CSV file, the others in DICOM alone."""
    dicom(folder, rows)
    half = PATIENTS * FILMS // 2
    lines = [
        f"films/{CLASSES[LABELS[row]]}/film {row}.dcm,{CLASSES[LABELS[row]]},"
        + (OWNERS[row] if row < half else "")
        for row in rows
    ]
    (folder / "films.csv").write_text("\n".join(["path,label,patient_id", *lines]) + "\n")
    return {"kind": "csv", "path": str(folder / "films.csv")}


SOURCES = {
    Unit.IMAGE: [bare_npz, npz_of_patients, grouped_npz, pngs, dicom, csv, csv_of_dicom],
    Unit.PATIENT: [npz_of_patients, grouped_npz, dicom, csv, csv_of_dicom],
}


def private_study(unit: Unit) -> Study:
    values = {
        "name": "tiny",
        "classes": list(CLASSES),
        "image": {"size": 16},
        "images_per_class": 1,
        "quorum": 1,
        "distill": {"method": "dm", "iterations": 1},
        "privacy": {"mode": "dp-embed", "epsilon": 8.0, "unit": unit.value},
    }
    return parse_settings(Study, values, "tiny")


def learned_from(folder: Path, source: Source, unit: Unit) -> Counter[tuple[bytes, int]]:
    """The records that the mechanism reads; the site keeps its state from one time to the next."""
    values = {
        "name": "site-1",
        "seed": 11,
        "images": source,
        "state": str(folder / "state"),
        "study": "study.toml",
        "study_digest": "0" * 64,
        "run_signing_fingerprint": "pinned elsewhere",
        "release": {"held_out": 0.4},
    }
    train = read_cohort(parse_settings(SiteConfig, values, "site"), private_study(unit)).train
    pixels = (image.tobytes() for image in train.images.numpy())
    return Counter(zip(pixels, train.labels.tolist(), strict=True))


def records(rows: Rows) -> Counter[tuple[bytes, int]]:
    return Counter((PIXELS[row].tobytes(), int(LABELS[row])) for row in rows)


@pytest.mark.parametrize(
    ("unit", "make"), [(unit, make) for unit, kinds in SOURCES.items() for make in kinds]
)
def test_a_unit_more_or_less_changes_the_training_set_by_itself_alone(
    tmp_path: Path, unit: Unit, make: Callable[[Path, Rows], Source]
):
    everyone = list(range(len(PIXELS)))
    (tmp_path / "state").mkdir()
    whole = learned_from(tmp_path, make(tmp_path, everyone), unit)
    assert 0 < whole.total() < len(everyone)

    for first in (0, 14):
        gone = [first] if unit is Unit.IMAGE else [first, first + 1]
        shutil.rmtree(tmp_path / "films", ignore_errors=True)
        less = learned_from(tmp_path, make(tmp_path, [r for r in everyone if r not in gone]), unit)

        assert less - whole == Counter()
        assert whole - less in (Counter(), records(gone))


def test_films_of_a_patient_whom_dicom_names_are_on_one_side(tmp_path):
    (tmp_path / "state").mkdir()
    found = learned_from(tmp_path, dicom(tmp_path, list(range(len(PIXELS)))), Unit.PATIENT)

    of_patients = [records([row, row + 1]) for row in range(0, len(PIXELS), FILMS)]
    assert {(found & films).total() for films in of_patients} == {0, FILMS}


def test_a_film_of_the_test_set_excludes_no_film_that_is_left_open(tmp_path):
    (tmp_path / "state").mkdir()
    splits = ["test", *[""] * (len(PIXELS) - 1)]
    source = npz(tmp_path, list(range(len(PIXELS))), split=splits, patient_id=OWNERS)

    with pytest.raises(DataError, match="1 groups have images in test and others that no split"):
        learned_from(tmp_path, source, Unit.IMAGE)


def test_a_patient_whom_the_csv_file_names_on_some_films_alone_is_refused(tmp_path):
    (tmp_path / "state").mkdir()
    source = csv_of_dicom(tmp_path, list(range(len(PIXELS))))
    path = Path(source["path"])
    path.write_text(path.read_text().replace("film 0.dcm,A,patient 0", "film 0.dcm,A,"))

    with pytest.raises(DataError, match="1 patients have a patient_id on some of their images"):
        learned_from(tmp_path, source, Unit.PATIENT)
