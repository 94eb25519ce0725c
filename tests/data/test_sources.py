from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from dicom_kit import PATIENT, PLANTED, film, write_dicom
from PIL import Image

from fedcondense.config.site import BurnedIn, ImageCsv, ImageFolder, ImageNpz, ImageSource
from fedcondense.config.study import ImageSpec
from fedcondense.data import sources
from fedcondense.data.groups import Grouping
from fedcondense.data.sources import Reader, Reading
from fedcondense.progress import Step, silent

SPEC = ImageSpec(size=16)


def _png(path: Path, seed: int, side: int = 64) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(film(side, 8, seed)).save(path)
    return path


def _folder(path: Path, burned_in: str = "refuse") -> ImageFolder:
    return ImageFolder(kind="folder", path=path, burned_in=BurnedIn(burned_in))


def _csv(folder: Path, *rows: str) -> ImageCsv:
    path = folder / "films.csv"
    path.write_text("\n".join(("path,label,patient_id", *rows)) + "\n", encoding="utf-8")
    return ImageCsv(kind="csv", path=path)


def _read(
    source: ImageSource,
    cache: Path | None = None,
    grouping: Grouping = Grouping.COPIES,
    steps: list[Step] | None = None,
) -> Reading:
    watch = silent if steps is None else steps.append
    return Reader(SPEC, watch, cache, grouping).read(source, None)


def test_films_of_one_patient_in_dicom_are_a_group_and_the_id_is_dropped(tmp_path):
    for name, patient in (("A/1", "x"), ("A/2", PATIENT), ("B/3", PATIENT), ("B/4", "")):
        seed = int(name[-1])
        write_dicom(tmp_path / f"{name}.dcm", film(bits=8, seed=seed), PatientID=patient)

    images = _read(_folder(tmp_path)).images

    one, two, same, nobody = images.groups
    assert (two, nobody) == (same, "B/4")
    assert one != two
    assert images.patients == (one, two, two, "")
    assert PATIENT not in "".join(images.groups)
    assert images.images[1, 0].tolist() == film(bits=8, seed=2).tolist()


def test_a_csv_file_may_list_dicom_and_both_say_who_is_who(tmp_path):
    for number, patient in enumerate(("p", "p", "q", ""), start=1):
        pixels = film(bits=8, seed=number)
        write_dicom(tmp_path / f"{number}.dcm", pixels, PatientID=patient)

    source = _csv(tmp_path, "1.dcm,A,", "2.dcm,B,Anna", "3.dcm,B,Anna", "4.dcm,A,")
    images = _read(source).images

    first, *others, last = images.groups
    assert others == [first, first]
    assert last == "file 4.dcm"
    assert images.patients == ("Anna", "Anna", "Anna", "")


def test_copies_are_joined_whatever_their_format_and_class(tmp_path):
    original = _png(tmp_path / "A/1.png", seed=1)
    _png(tmp_path / "A/2.png", seed=2)
    Image.open(original).save(tmp_path / "A/3.jpg", quality=60)
    (tmp_path / "B").mkdir()
    (tmp_path / "B/4.png").write_bytes(original.read_bytes())

    reading = _read(_folder(tmp_path))

    assert reading.images.groups == ("A/1", "A/2", "A/1", "A/1")
    assert reading.images.patients is None
    assert reading.copies is not None
    assert (reading.copies.exact, reading.copies.near) == (1, 1)


def test_copies_join_the_groups_of_their_patients(tmp_path):
    for number, seed in enumerate((1, 2, 3, 2), start=1):
        _png(tmp_path / f"{number}.png", seed)
    source = _csv(tmp_path, "1.png,A,Anna", "2.png,A,Anna", "3.png,B,Bert", "4.png,B,Bert")

    joined, alone = _read(source), _read(source, grouping=Grouping.PATIENTS)

    assert joined.images.groups == ("Anna",) * 4
    assert joined.images.patients == ("Anna", "Anna", "Bert", "Bert")
    assert alone.images.groups == alone.images.patients == joined.images.patients


def test_the_groups_of_an_npz_are_its_authors(tmp_path):
    pixels = np.stack([film(bits=8)] * 4)
    columns = {"labels": np.array([0, 0, 1, 1]), "class_names": np.array(["A", "B"])}
    patients = np.array(["p", "", "p", "q"])
    np.savez(tmp_path / "a.npz", images=pixels, patient_id=patients, **columns)

    reading = _read(ImageNpz(kind="npz", path=tmp_path / "a.npz"))

    assert reading.copies is None
    assert reading.images.groups == ("p", reading.images.groups[1], "p", "q")
    assert reading.images.patients == ("p", "", "p", "q")


def test_the_fewer_of_two_kinds_are_the_problem(tmp_path):
    for number in (1, 2):
        _png(tmp_path / f"A/{number}.png", number)
    write_dicom(tmp_path / "B/3.dcm", film(bits=8))

    few = _read(_folder(tmp_path)).problems
    write_dicom(tmp_path / "B/4.dcm", film(bits=8, seed=4))
    write_dicom(tmp_path / "B/5.dcm", film(bits=8, seed=5))
    many = _read(_folder(tmp_path)).problems

    assert [(p.row, p.reason) for p in few] == [(3, "DICOM, and most files are not")]
    assert [(p.row, p.reason) for p in many] == [
        (1, "not DICOM, as others"),
        (2, "not DICOM, as others"),
    ]


def test_what_is_wrong_with_rows_and_files_is_told_together_and_the_rest_is_read(tmp_path):
    _png(tmp_path / "1.png", 1)
    (tmp_path / "2.png").touch()
    source = _csv(tmp_path, "1.png,A,p", "2.png,B,q", "3.png,B,q", "1.png,A,p")

    reading = _read(source)

    assert [(p.row, p.reason) for p in reading.problems] == [
        (4, "no such file"),
        (5, "the file of an earlier row"),
        (3, "the file is empty"),
    ]
    assert (reading.total, len(reading.images)) == (4, 1)


def test_the_second_time_no_image_is_opened(tmp_path, monkeypatch):
    for number in range(4):
        patient = {"PatientID": f"{PATIENT}-{number // 2}"}
        pixels = film(64, 8, seed=number % 3)
        write_dicom(tmp_path / f"data/{'AB'[number % 2]}/{number}.dcm", pixels, **patient)
    source, cache, steps = _folder(tmp_path / "data"), tmp_path / "state/images", []
    first = _read(source, cache)

    monkeypatch.setattr(sources, "read_films", None)
    second = _read(source, cache, steps=steps)
    alone = _read(source, cache, Grouping.PATIENTS)

    assert (second.images.images == first.images.images).all()
    assert second.images.labels.tolist() == first.images.labels.tolist() == [0, 0, 1, 1]
    assert second.images.groups == first.images.groups
    assert len(set(second.images.groups)) == 1  # 0 and 3 are copies
    assert second.images.patients == first.images.patients == alone.images.groups
    assert len(set(alone.images.groups)) == 2
    assert alone.images.groups == alone.images.patients
    assert second.copies is not None
    assert (second.copies.exact, second.copies.near) == (1, 0)
    assert steps == [Step("reading images", 4, 4)]


def test_the_cache_is_one_of_form_and_policy(tmp_path):
    _png(tmp_path / "data/A/1.png", 1)
    _png(tmp_path / "data/B/2.png", 2)
    cache = tmp_path / "cache"
    _read(_folder(tmp_path / "data"), cache)

    _read(_folder(tmp_path / "data", "allow"), cache)
    Reader(ImageSpec(size=32), silent, cache).read(_folder(tmp_path / "data"), None)

    assert sum(path.is_dir() for path in cache.iterdir()) == 3


def test_what_cannot_be_read_is_not_kept(tmp_path):
    _png(tmp_path / "data/A/1.png", 1)
    (tmp_path / "data/A/2.png").touch()

    for _ in range(2):
        assert len(_read(_folder(tmp_path / "data"), tmp_path / "cache").problems) == 1

    assert not (tmp_path / "cache").exists()


def test_a_file_that_changes_while_it_is_read_is_not_kept(tmp_path):
    path = _png(tmp_path / "data/A/1.png", 1)
    cache = tmp_path / "cache"

    def touch(step: Step) -> None:
        os.utime(path, ns=(step.done, step.done))

    Reader(SPEC, touch, cache).read(_folder(tmp_path / "data"), None)

    assert not cache.exists()


def test_no_identifier_reaches_the_cache_or_a_repr(tmp_path):
    for number in (1, 2):
        path = tmp_path / f"data/A/Mustermann-{number}.dcm"
        write_dicom(path, film(bits=8, seed=number))
    source = _csv(tmp_path / "data", *(f"A/Mustermann-{n}.dcm,A,Mustermann" for n in (1, 2)))
    cache = tmp_path / "cache"

    readings = [_read(_folder(tmp_path / "data"), cache), _read(source, cache)]

    kept = [path for path in cache.rglob("*") if path.is_file()]
    assert len(kept) >= 4
    for planted in PLANTED:
        assert not any(planted.encode() in path.read_bytes() for path in kept)
        assert planted not in repr(readings)


def test_progress_is_told_for_every_image(tmp_path):
    for number in (1, 2):
        _png(tmp_path / f"A/{number}.png", number)
    steps: list[Step] = []

    _read(_folder(tmp_path), steps=steps)

    assert [(step.stage, step.done, step.total) for step in steps] == [
        ("reading images", 1, 2),
        ("reading images", 2, 2),
        ("looking for duplicates", 2, 2),
    ]


@pytest.mark.parametrize("channels", [1, 3])
def test_dicom_takes_the_form_of_the_study(tmp_path, channels):
    write_dicom(tmp_path / "A/1.dcm", film(40), bits=12)

    reader = Reader(ImageSpec(size=16, channels=channels), silent)

    assert reader.read(_folder(tmp_path), None).images.images.shape == (1, channels, 16, 16)
