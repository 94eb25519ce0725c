from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedcondense.data.groups import join_groups, patients_of
from fedcondense.data.listing import ImageFile


def _files(*patients: str) -> list[ImageFile]:
    return [
        ImageFile(row, Path(f"{row}.png"), f"{row}.png", "A", patient or f"file {row}", patient)
        for row, patient in enumerate(patients)
    ]


def _ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def test_a_group_is_named_as_its_first_file_says():
    files = _files("p", "", "p", "q")

    groups = join_groups(files, _ints(-1, -1, -1, -1), _ints(0, 1, 2, 1))

    assert groups == ("p", "file 1", "p", "file 1")  # 3 is a copy of 1


def test_joins_chain():
    # 0 and 1 are copies, 1 and 2 are one patient in DICOM, 2 and 3 in the CSV file
    files = _files("", "", "p", "p", "")

    groups = join_groups(files, _ints(-1, 1, 1, -1, -1), _ints(0, 0, 2, 3, 4))

    assert groups == ("file 0", "file 0", "file 0", "file 0", "file 4")


@given(data=st.data(), n=st.integers(1, 12))
def test_groups_are_the_connected_parts(data, n):
    first = st.integers(0, n - 1)
    patients = [data.draw(st.sampled_from(["", "p", "q", "r"])) for _ in range(n)]
    same_patient = _ints(*(min(row, data.draw(first | st.just(-1))) for row in range(n)))
    same_film = _ints(*(min(row, data.draw(first)) for row in range(n)))
    files = _files(*patients)

    groups = join_groups(files, same_patient, same_film)

    linked = np.eye(n, dtype=bool)
    for row in range(n):
        for other in range(n):
            linked[row, other] |= files[row].group == files[other].group
        for other in (same_patient[row], same_film[row]):
            if other >= 0:
                linked[row, other] = linked[other, row] = True
    for _ in range(n):
        linked |= linked @ linked
    assert [[a == b for b in groups] for a in groups] == linked.tolist()


def test_without_any_patient_nothing_is_invented():
    assert patients_of(_files("", ""), _ints(-1, -1)) is None


def test_the_sources_word_on_a_patient_comes_before_dicoms():
    # in DICOM: 0, 1 and 2 are one patient, 3 and 4 another, 5 nobody
    same_patient = _ints(0, 0, 0, 3, 3, -1)

    patients = patients_of(_files("", "p", "q", "", "", "r"), same_patient)

    assert patients == ("p", "p", "q", "file 3", "file 3", "r")


def test_a_patient_whom_nobody_names_stays_empty():
    assert patients_of(_files("p", ""), _ints(-1, -1)) == ("p", "")
