"""Images that a CSV file lists: `path`, `label`, `patient_id`, perhaps `site`."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from fedcondense.data.listing import ImageFile, Listing, sorted_names
from fedcondense.data.problems import Problem, UnusableImages
from fedcondense.errors import DataError

REQUIRED = ("path", "label", "patient_id")
OPTIONAL = ("site",)
SEPARATORS = ",;\t"  # spreadsheets of some countries write a semicolon
LARGEST_CSV = 256 * 2**20  # bytes
CLASS_NAME = re.compile(r"[^\x00-\x1f/\\]{1,80}")  # as in a study
HEADER_ROW = 1  # as a spreadsheet counts

_MISSING_HINT = "paths are relative to the CSV file's folder, or to images.root"


@dataclass(frozen=True)
class _Entry:
    row: int
    values: dict[str, str]


def list_csv(path: Path, root: Path | None, classes: tuple[str, ...] | None) -> Listing:
    """List the rows of a CSV file; paths in it are relative to `root`, or else to its own folder.

    Rows with the same `patient_id` are one group; a row without one is a group of its own. Rows
    that cannot be used are told as problems: nothing is skipped, and no text of a row is quoted.

    Raises:
        DataError: the file is no such CSV file, or lists nothing.
    """
    header, rows = _header_and_rows(path)
    _check_header(header, path.name)
    entries, problems = _entries(header, rows)
    if not entries and not problems:
        raise DataError(f"{path.name}: lists no image", hint="one row to an image below the header")
    folder = path.parent if root is None else root
    files: list[ImageFile] = []
    seen: set[Path] = set()
    for entry in entries:
        found = _looked_up(entry, folder, classes, seen)
        (problems if isinstance(found, Problem) else files).append(found)  # type: ignore[arg-type]
    named = classes or sorted_names(file.class_name for file in files)
    return Listing(tuple(files), named, tuple(problems))


def _header_and_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    text = _text(path)
    first_line = text.partition("\n")[0]
    separator = max(SEPARATORS, key=first_line.count)
    try:
        header, *rows = csv.reader(text.splitlines(keepends=True), delimiter=separator, strict=True)
    except csv.Error as error:
        if "field limit" in str(error):
            raise DataError(
                f"{path.name}: a value is longer than {csv.field_size_limit()} characters",
                hint="most often a quotation mark is not closed",
            ) from None
        raise DataError(
            f"{path.name}: a quotation mark is not closed, or stands inside a value",
            hint='write a value with quotation marks as "... ""quoted"" ..."',
        ) from None
    except ValueError:  # no row at all
        raise DataError(f"{path.name}: the file is empty", hint="see docs/ref-data.md") from None
    return [name.strip() for name in header], rows


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST_CSV:
            raise DataError(
                f"{path.name}: larger than {LARGEST_CSV} bytes",
                hint="list one image to a row, with the columns of docs/ref-data.md alone",
            )
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        problem = (error.strerror or "unreadable").lower()
        raise UnusableImages(
            f"{path.name}: {problem}",
            hint="give the path of a CSV file that this user can read",
            by_file=f"{path}: {problem}",
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{path.name}: not UTF-8", hint="save it as CSV in UTF-8") from None


def _check_header(header: list[str], name: str) -> None:
    hint = f"the header is {','.join(REQUIRED)} and perhaps {','.join(OPTIONAL)}"
    if missing := [column for column in REQUIRED if column not in header]:
        # not quoted: where there is no header, its place is taken by a patient
        raise DataError(f"{name}: no column {', '.join(missing)}", hint=hint)
    if unknown := [column for column in header if column not in (*REQUIRED, *OPTIONAL)]:
        raise DataError(
            f"{name}: unknown columns {', '.join(map(repr, unknown))}",
            hint=f"{hint}; take out all others, which nothing here needs",
        )
    if len(set(header)) < len(header):
        raise DataError(f"{name}: a column stands twice", hint=hint)


def _entries(header: list[str], rows: list[list[str]]) -> tuple[list[_Entry], list[Problem]]:
    entries, problems = [], []
    for row, fields in enumerate(rows, start=HEADER_ROW + 1):
        if not any(field.strip() for field in fields):
            continue  # spreadsheets leave blank rows below the last
        if len(fields) != len(header):
            problems.append(
                Problem(row, "another number of values than the header", "quote commas in values")
            )
            continue
        values = (field.strip() for field in fields)
        entries.append(_Entry(row, dict(zip(header, values, strict=True))))
    return entries, problems


def _looked_up(
    entry: _Entry, folder: Path, classes: tuple[str, ...] | None, seen: set[Path]
) -> ImageFile | Problem:
    """The file that a row means, or what is wrong with the row."""
    name, label = entry.values["path"], entry.values["label"]
    path = folder / name
    if problem := _label_problem(label, classes) or _path_problem(name, path, seen):
        reason, hint = problem
        return Problem(entry.row, reason, hint, name)
    seen.add(path.resolve())
    patient = entry.values["patient_id"]
    return ImageFile(
        row=entry.row,
        path=path,
        name=name,
        class_name=label,
        group=patient or f"file {name}",
        patient=patient,
        site=entry.values.get("site", ""),
    )


def _label_problem(label: str, classes: tuple[str, ...] | None) -> tuple[str, str] | None:
    if classes is not None and label not in classes:
        spelled = ", ".join(classes)
        return "the label is no class of the study", f"labels are spelled as in it: {spelled}"
    if not CLASS_NAME.fullmatch(label):
        return "no class name as label", "1 to 80 characters without slashes"
    return None


def _path_problem(name: str, path: Path, seen: set[Path]) -> tuple[str, str] | None:
    try:
        if not name or "\0" in name:
            return "no path", _MISSING_HINT
        if not path.exists():
            return "no such file", _MISSING_HINT
        if not path.is_file():
            return "not a file", _MISSING_HINT
        if path.resolve() in seen:
            return "the file of an earlier row", "list each image once"
    except OSError as error:
        return (error.strerror or "unreadable").lower(), _MISSING_HINT
    return None
