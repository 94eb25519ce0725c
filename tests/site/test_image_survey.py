"""The doctor at the images: what the study would find, and what is too little for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from joined_kit import Hospital, hospital

from fedcondense.config.privacy import DpEmbed, Unit
from fedcondense.config.site import load_site
from fedcondense.config.study import Study
from fedcondense.data.dicom import NO_PYDICOM
from fedcondense.data.problems import Problem
from fedcondense.data.survey import ClassCount, Survey
from fedcondense.site import image_survey
from fedcondense.site.doctor import Finding, Verdict
from fedcondense.site.image_survey import survey_images


@pytest.fixture
def lakeside(tmp_path: Path) -> Hospital:
    release = {"min_patients_per_class": 10, "held_out": 0.2}
    return hospital(tmp_path / "lakeside", release=release)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What the survey counts; to be changed."""
    counts: dict[str, object] = {
        "total": 60,
        "classes": (ClassCount("covid", 30, 20, 16, 4), ClassCount("normal", 30, 13, 10, 3)),
        "left_out": 0,
        "largest_group": 3,
        "with_patient": 60,
        "exact": 0,
        "near": 0,
        "contradictions": 0,
        "crossing": 0,
        "problems": (),
        "copies": (),
    }
    monkeypatch.setattr(image_survey, "survey", lambda *_, **__: Survey(**counts))
    return counts


def lines(site: Hospital, study: Study | None = None) -> list[Finding]:
    return list(survey_images(load_site(site.settings), study or site.study))


def test_images_in_order_are_counted_by_class(lakeside: Hospital, found: dict[str, object]) -> None:
    assert [(line.verdict, line.text) for line in lines(lakeside)] == [
        (Verdict.OK, "60 of 60 images can be used, of 33 groups"),
        (Verdict.OK, "covid: 30 images, 20 groups, 16 to learn from"),
        (Verdict.OK, "normal: 30 images, 13 groups, 10 to learn from"),
    ]


def test_a_class_with_too_few_groups_to_learn_from_will_be_left_out(
    lakeside: Hospital, found: dict[str, object]
) -> None:
    found["classes"] = (ClassCount("covid", 30, 20, 16, 4), ClassCount("normal", 30, 11, 9, 2))

    *_, last = lines(lakeside)

    assert last.verdict is Verdict.NOTE
    assert last.hint == "fewer than 10 groups are left to learn from, so the class is left out"


def test_a_site_without_a_large_class_cannot_take_part(
    lakeside: Hospital, found: dict[str, object]
) -> None:
    found |= {"classes": (ClassCount("covid", 3, 2, 2), ClassCount("normal", 30, 11, 11, 0))}
    found |= {"with_patient": 33}

    assert lines(lakeside)[-1].text == "no class is large enough, so this site cannot take part"
    assert lines(lakeside)[-1].verdict is Verdict.FAILED


def test_unreadable_images_are_named_to_the_operator(
    lakeside: Hospital, found: dict[str, object]
) -> None:
    found["problems"] = (Problem(4, "two films in one file", "export again", "covid/4.dcm"),)

    total, image, *_ = lines(lakeside)

    assert (total.verdict, image.verdict) == (Verdict.FAILED, Verdict.FAILED)
    assert (image.text, image.hint) == ("covid/4.dcm: two films in one file", "export again")


def test_a_group_on_both_sides_is_a_failure(lakeside: Hospital, found: dict[str, object]) -> None:
    found["crossing"] = 2

    assert lines(lakeside)[0].text == "2 groups are in both train and test"


def test_copies_and_unknown_patients_are_worth_knowing(
    lakeside: Hospital, found: dict[str, object]
) -> None:
    found |= {"with_patient": 58, "exact": 3, "near": 1, "contradictions": 1}

    notes = [line.text for line in lines(lakeside) if line.verdict is Verdict.NOTE]

    assert notes == [
        "the patient of 2 images is not known; each counts as its own",
        "1 films have copies in several classes",
        "3 images are equal to another, 1 nearly; joined into groups",
    ]


def test_a_study_that_hides_patients_needs_every_patient_and_looks_at_no_class(
    lakeside: Hospital, found: dict[str, object]
) -> None:
    found |= {"with_patient": 58, "classes": (ClassCount("covid", 60, 2),)}
    privacy = DpEmbed(mode="dp-embed", epsilon=8.0, delta=1e-5, unit=Unit.PATIENT)
    study = lakeside.study.model_copy(update={"privacy": privacy})

    findings = lines(lakeside, study)

    assert [line.what for line in findings if line.verdict is Verdict.FAILED] == ["patients"]


def test_phantoms_are_surveyed_as_they_are(lakeside: Hospital) -> None:
    study = lakeside.study.model_copy(update={"classes": ("COVID", "Normal")})

    findings = lines(lakeside, study)

    assert findings[0].what == "images"


def test_a_class_of_which_nothing_is_held_out_will_be_left_out(
    lakeside: Hospital, found: dict[str, object]
) -> None:
    found["classes"] = (ClassCount("covid", 30, 20, 16, 4), ClassCount("normal", 30, 11, 11, 0))

    *_, last = lines(lakeside)

    assert last.hint == "no group of it is held out for the audits, so the class is left out"


def test_a_folder_that_no_class_is_named_like_is_told(
    lakeside: Hospital, found: dict[str, object]
) -> None:
    found["other_classes"] = ("Covid",)

    [told] = [line for line in lines(lakeside) if "Covid" in line.text]

    assert told.verdict is Verdict.NOTE
    assert told.text == "the folder Covid holds images, and no class of the study is called so"


def test_a_missing_reader_of_dicom_is_one_line(
    lakeside: Hospital, found: dict[str, object]
) -> None:
    found["problems"] = tuple(
        Problem(row, NO_PYDICOM, "install it", f"{row}.dcm") for row in range(1, 40)
    )

    failures = [line for line in lines(lakeside) if line.verdict is Verdict.FAILED]

    assert [line.what for line in failures] == ["images", "software"]
    assert failures[1].text == "39 images are DICOM, and pydicom is not installed"
