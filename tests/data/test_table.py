from __future__ import annotations

from pathlib import Path

import pytest

from fedcondense.data import table
from fedcondense.data.listing import Listing
from fedcondense.data.table import list_csv
from fedcondense.errors import DataError

CLASSES = ("COVID", "Normal")
HEADER = "path,label,patient_id"


def _csv(folder: Path, *rows: str, header: str = HEADER, files: int = 4) -> Path:
    for number in range(1, files + 1):
        (folder / f"{number}.png").touch()
    path = folder / "films.csv"
    path.write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return path


def _error(path: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        list_csv(path, None, CLASSES)
    return caught.value


def _reasons(listing: Listing) -> dict[int, str]:
    return {problem.row: problem.reason for problem in listing.problems}


def test_each_row_is_a_file_with_class_patient_and_site(tmp_path):
    path = _csv(tmp_path, "1.png,Normal,p1,north", "2.png,COVID,p2,", header=HEADER + ",site")

    first, second = list_csv(path, None, CLASSES).files

    assert (first.row, first.class_name, first.patient, first.site) == (2, "Normal", "p1", "north")
    assert (second.row, second.class_name, second.patient, second.site) == (3, "COVID", "p2", "")
    assert (first.path, first.name) == (tmp_path / "1.png", "1.png")


def test_rows_of_one_patient_are_a_group_and_rows_of_none_are_each_their_own(tmp_path):
    path = _csv(tmp_path, "1.png,Normal,p", "2.png,COVID,p", "3.png,Normal,", "4.png,Normal,")

    groups = [file.group for file in list_csv(path, None, CLASSES).files]

    assert groups == ["p", "p", "file 3.png", "file 4.png"]


def test_columns_may_stand_in_any_order_and_the_site_may_be_missing(tmp_path):
    path = _csv(tmp_path, "p1,1.png,Normal", header="patient_id,path,label")

    (file,) = list_csv(path, None, CLASSES).files

    assert (file.patient, file.name, file.class_name, file.site) == ("p1", "1.png", "Normal", "")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_spreadsheets_of_all_countries_are_read(tmp_path, separator):
    path = _csv(tmp_path, "1.png,Normal,p1".replace(",", separator), header="")
    text = HEADER.replace(",", separator) + path.read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8-sig")  # with a byte order mark

    assert [file.patient for file in list_csv(path, None, CLASSES).files] == ["p1"]


def test_a_quoted_value_may_hold_the_separator(tmp_path):
    (tmp_path / "a, b.png").touch()
    path = _csv(tmp_path, '"a, b.png",Normal,"p, 1"')

    (file,) = list_csv(path, None, CLASSES).files

    assert (file.name, file.patient) == ("a, b.png", "p, 1")


def test_paths_are_relative_to_the_root_if_one_is_named(tmp_path):
    (tmp_path / "films").mkdir()
    (tmp_path / "films/9.png").touch()
    path = _csv(tmp_path, "9.png,Normal,", str(tmp_path / "1.png") + ",COVID,")

    files = list_csv(path, tmp_path / "films", CLASSES).files

    assert [file.path for file in files] == [tmp_path / "films/9.png", tmp_path / "1.png"]


def test_without_a_study_the_classes_are_the_labels_in_the_order_of_letters(tmp_path):
    path = _csv(tmp_path, "1.png,b,", "2.png,C,", "3.png,a,")

    assert list_csv(path, None, None).classes == ("a", "b", "C")
    assert list_csv(_csv(tmp_path, "1.png,Normal,"), None, CLASSES).classes == CLASSES


def test_all_that_is_wrong_is_told_by_row_at_once(tmp_path):
    path = _csv(
        tmp_path,
        "1.png,Normal,p1",
        "nowhere.png,Normal,p1",
        "2.png,Covid,p1",
        "1.png,COVID,p2",
        ",Normal,p3",
        "3.png,Normal",
        ".,Normal,p4",
        "4.png,Normal,p4,north",
        "./1.png,Normal,",
    )

    listing = list_csv(path, None, CLASSES)

    assert _reasons(listing) == {
        3: "no such file",
        4: "the label is no class of the study",
        5: "the file of an earlier row",
        6: "no path",
        7: "another number of values than the header",
        8: "not a file",
        9: "another number of values than the header",
        10: "the file of an earlier row",
    }
    assert [file.row for file in listing.files] == [2]
    assert listing.total == 9


@pytest.mark.parametrize("label", ["", "a/b", "x" * 81])
def test_without_a_study_a_label_must_still_be_a_class_name(tmp_path, label):
    listing = list_csv(_csv(tmp_path, f"1.png,{label},"), None, None)

    assert _reasons(listing) == {2: "no class name as label"}


def test_blank_rows_are_passed_over_and_counted(tmp_path):
    listing = list_csv(_csv(tmp_path, "1.png,Normal,", "", ",,", "2.png,COVID,"), None, CLASSES)

    assert [file.row for file in listing.files] == [2, 5]
    assert listing.problems == ()


def test_a_column_that_is_not_known_is_refused_by_name(tmp_path):
    error = _error(_csv(tmp_path, header=HEADER + ",age,sex"))

    assert error.message == "films.csv: unknown columns 'age', 'sex'"


def test_a_missing_header_is_not_quoted(tmp_path):
    error = _error(_csv(tmp_path, header="mustermann.png,Normal,Erika Mustermann"))

    assert error.message == "films.csv: no column path, label, patient_id"
    assert "ustermann" not in error.hint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "films.csv: the file is empty"),
        (HEADER.encode(), "films.csv: lists no image"),
        (b"path,label,patient_id,path\n", "films.csv: a column stands twice"),
        (
            b'path,label,patient_id\n"1.png,Normal,\n',
            "films.csv: a quotation mark is not closed, or stands inside a value",
        ),
        ("path,label,patient_id\n1.png,Normal,Müller\n".encode("latin-1"), "films.csv: not UTF-8"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused(tmp_path, content, message):
    path = tmp_path / "films.csv"
    path.write_bytes(content)

    assert _error(path).message == message


def test_a_missing_file_is_refused(tmp_path):
    assert _error(tmp_path / "films.csv").message == "films.csv: no such file or directory"


def test_a_table_that_is_far_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "LARGEST_CSV", 10)

    assert _error(_csv(tmp_path)).message == "films.csv: larger than 10 bytes"


def test_a_path_that_no_file_can_have_is_a_problem(tmp_path):
    listing = list_csv(_csv(tmp_path, "x" * 300 + ".png,Normal,"), None, CLASSES)

    assert _reasons(listing) == {2: "file name too long"}


def test_neither_names_nor_patients_show_in_the_listing(tmp_path):
    (tmp_path / "mustermann.png").touch()
    path = _csv(tmp_path, "mustermann.png,Normal,Mustermann", "mustermann2.png,Mustermann,")

    listing = list_csv(path, None, CLASSES)

    assert "ustermann" not in repr(listing)
    assert len(listing.problems) == 1


def test_a_value_beyond_every_measure_is_told_as_such(tmp_path):
    path = _csv(tmp_path, f"1.png,Normal,{'p' * 140_000}")

    assert _error(path).message == "films.csv: a value is longer than 131072 characters"
