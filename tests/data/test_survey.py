from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from dicom_kit import film, write_dicom
from PIL import Image

from fedcondense.config.site import ImageCsv, ImageFolder, ImageNpz, Phantoms
from fedcondense.config.study import ImageSpec
from fedcondense.data.dataset import without_small_classes
from fedcondense.data.loading import load_images
from fedcondense.data.problems import Naming
from fedcondense.data.sources import Reader
from fedcondense.data.split import cut_held_out, training_rows
from fedcondense.data.survey import ClassCount, survey
from fedcondense.errors import DataError
from fedcondense.progress import silent

SPEC = ImageSpec(size=16)
READER = Reader(SPEC, silent)


def _png(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(film(64, 8, seed)).save(path)


@pytest.fixture
def source(tmp_path: Path) -> ImageCsv:
    """Six rows: two patients, a copy with another class, a broken and a missing file."""
    for name, seed in (("1", 1), ("2", 2), ("3", 3), ("Mustermann-4", 1)):
        _png(tmp_path / f"{name}.png", seed)
    (tmp_path / "Mustermann-5.png").touch()
    rows = (
        "1.png,Normal,Anna",
        "2.png,Normal,Anna",
        "3.png,Normal,",
        "Mustermann-4.png,COVID,Bert",
    )
    more = ("Mustermann-5.png,COVID,Bert", "Mustermann-6.png,COVID,Bert")
    path = tmp_path / "films.csv"
    path.write_text("\n".join(("path,label,patient_id", *rows, *more)), encoding="utf-8")
    return ImageCsv(kind="csv", path=path)


def test_a_survey_counts_what_is_there(source):
    found = survey(source, READER, ("COVID", "Normal", "Pneumonia"))

    assert found.classes == (
        ClassCount("COVID", 1, 0, 1),  # its group counts by the class of its first image
        ClassCount("Normal", 3, 2, 2),
        ClassCount("Pneumonia", 0, 0),
    )
    assert (found.total, found.images, found.groups, found.left_out) == (6, 4, 2, 0)
    assert (found.largest_group, found.with_patient) == (3, 3)
    assert (found.exact, found.near, found.contradictions, found.crossing) == (1, 0, 1, 0)


def test_rows_alone_are_told_where_a_log_may_read_along(source):
    found = survey(source, READER)

    told = repr(found) + str(asdict(found))

    assert not any(name in told for name in ("ustermann", "Anna", "Bert"))
    assert found.copies == (("row 2", "row 5"),)
    assert [(problem.row, problem.reason) for problem in found.problems] == [
        (6, "the file is empty"),
        (7, "no such file"),
    ]


def test_files_are_named_on_the_operators_terminal(source):
    found = survey(source, READER, naming=Naming.FILES)

    assert found.copies == (("1.png", "Mustermann-4.png"),)
    assert [problem.file for problem in found.problems] == ["Mustermann-5.png", "Mustermann-6.png"]
    assert "Mustermann" not in repr(found)


def test_images_of_other_classes_are_counted_apart(write_archive):
    found = survey(ImageNpz(kind="npz", path=write_archive()), READER, ("COVID", "Viral"))

    assert found.classes == (ClassCount("COVID", 3, 3, 3), ClassCount("Viral", 0, 0))
    assert (found.images, found.left_out, found.total) == (3, 3, 6)


def test_groups_on_both_sides_of_the_split_are_counted(tmp_path):
    for name, seed in (("train/A/1", 1), ("train/B/2", 2), ("test/A/3", 3), ("test/B/4", 2)):
        _png(tmp_path / f"{name}.png", seed)

    found = survey(ImageFolder(kind="folder", path=tmp_path), READER)

    assert found.crossing == 1


def test_drawn_images_are_surveyed_too():
    found = survey(Phantoms(kind="phantoms", images_per_class=8, size=16), READER)

    assert (found.images, found.exact, found.near, found.problems) == (32, 0, 0, ())


def test_dicom_without_a_word_on_burned_in_annotation_is_told(tmp_path):
    write_dicom(tmp_path / "A/1.dcm", film(bits=8), BurnedInAnnotation=None)

    found = survey(ImageFolder(kind="folder", path=tmp_path), READER)

    assert [problem.hint for problem in found.problems] == [
        'look at the films, then set images.burned_in = "unstated"'
    ]


def test_a_source_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError):
        survey(ImageFolder(kind="folder", path=tmp_path / "nowhere"), READER)


def test_what_was_read_for_a_survey_is_kept_for_the_condensation(tmp_path):
    _png(tmp_path / "data/A/1.png", 1)

    survey(
        ImageFolder(kind="folder", path=tmp_path / "data"), Reader(SPEC, silent, tmp_path / "cache")
    )

    assert sum(path.is_dir() for path in (tmp_path / "cache").iterdir()) == 1


def test_a_source_of_which_nothing_can_be_read_is_surveyed(tmp_path):
    (tmp_path / "A").mkdir()
    (tmp_path / "A/1.png").touch()

    found = survey(ImageFolder(kind="folder", path=tmp_path), READER, ("A", "B"))

    assert (found.total, found.images, found.groups, found.largest_group) == (1, 0, 0, 0)
    assert len(found.problems) == 1


def test_what_the_data_gives_to_test_and_what_is_held_out_is_not_learned_from(tmp_path):
    for number in range(20):
        _png(tmp_path / f"train/A/{number}.png", number)
    for number in range(20, 30):
        _png(tmp_path / f"test/A/{number}.png", number)

    (count,) = survey(ImageFolder(kind="folder", path=tmp_path), READER, held_out=0.5).classes

    assert (count.images, count.groups) == (30, 30)
    assert count.learned + count.held_out == 20
    assert 0 < count.held_out < 20


def test_the_counts_are_those_of_the_cohort(tmp_path):
    rows = ["path,label,patient_id"]
    for number in range(24):
        _png(tmp_path / f"{number}.png", number)
        rows.append(f"{number}.png,{'AB'[number % 3 > 0]},patient-{number // 2}")
    (tmp_path / "films.csv").write_text("\n".join(rows))
    source = ImageCsv(kind="csv", path=tmp_path / "films.csv")

    counts = survey(source, READER, ("A", "B"), held_out=0.3).classes

    images = load_images(source, SPEC, classes=("A", "B"))
    train, held = cut_held_out(training_rows(images), 0.3)
    for label, count in enumerate(counts):
        assert without_small_classes(train, count.learned)[0].labels.eq(label).any()
        assert not without_small_classes(train, count.learned + 1)[0].labels.eq(label).any()
        assert bool(count.held_out) == bool(held.labels.eq(label).any())


@pytest.mark.parametrize("naming", list(Naming))
def test_a_misspelt_class_folder_is_named_to_the_operator_alone(tmp_path, naming):
    for name, seed in (("A/1", 1), ("Mustermann/2", 2)):
        _png(tmp_path / f"{name}.png", seed)

    found = survey(ImageFolder(kind="folder", path=tmp_path), READER, ("A", "B"), naming=naming)

    assert found.other_classes == (("Mustermann",) if naming is Naming.FILES else ())
    assert "Mustermann" not in repr(found)
