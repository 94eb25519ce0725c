"""`check`, at the images: what the study would find, told to the operator alone, by file name."""

from __future__ import annotations

from collections.abc import Iterator

from fedcondense.config.privacy import FormalPrivacy, Unit
from fedcondense.config.site import SiteConfig
from fedcondense.config.study import Study
from fedcondense.data.dicom import NO_PYDICOM
from fedcondense.data.problems import Naming
from fedcondense.data.sources import Reader
from fedcondense.data.survey import ClassCount, Survey, survey
from fedcondense.progress import Watch, silent
from fedcondense.site.doctor import Finding, Verdict

SHOWN = 10  # problems that are shown line by line


def survey_images(site: SiteConfig, study: Study, *, watch: Watch = silent) -> Iterator[Finding]:
    """Read all images as the study will, and say what is wrong with them and what is too little.

    Raises:
        DataError: the source as a whole cannot be used.
    """
    found = survey(
        site.images,
        Reader(study.image, watch, site.state / "images"),
        study.classes,
        naming=Naming.FILES,
        held_out=site.release.held_out,
    )
    yield _total(found)
    problems = [problem for problem in found.problems if problem.reason != NO_PYDICOM]
    if unread := [problem for problem in found.problems if problem.reason == NO_PYDICOM]:
        text = f"{len(unread)} images are DICOM, and pydicom is not installed"
        yield Finding("software", Verdict.FAILED, text, unread[0].hint)
    for problem in problems[:SHOWN]:
        text = f"{problem.file or f'row {problem.row}'}: {problem.reason}"
        yield Finding("image", Verdict.FAILED, text, problem.hint)
    for name in found.other_classes[:SHOWN]:
        text = f"the folder {name} holds images, and no class of the study is called so"
        hint = f"its images are left out; the classes are {', '.join(study.classes)}"
        yield Finding("class", Verdict.NOTE, text, hint)
    yield from _classes(found, site, study)
    yield from _patients(found, study)
    yield from _copies(found)


def _total(found: Survey) -> Finding:
    text = f"{found.images} of {found.total} images can be used, of {found.groups} groups"
    if found.problems:
        hint = "repair the others or take them out: none is skipped silently"
        return Finding("images", Verdict.FAILED, text, hint)
    if found.crossing:
        text = f"{found.crossing} groups are in both train and test"
        return Finding("images", Verdict.FAILED, text, "a group belongs to one side alone")
    if found.left_out:
        text += f"; {found.left_out} more are of classes that the study has not"
    return Finding("images", Verdict.OK, text)


def _classes(found: Survey, site: SiteConfig, study: Study) -> Iterator[Finding]:
    # under differential privacy nobody may look which classes are large
    strict = study.privacy.mode == "none"
    least = max(study.images_per_class, site.release.min_patients_per_class) if strict else 0
    too_few = 0
    for count in found.classes:
        text = (
            f"{count.name}: {count.images} images, {count.groups} groups, "
            f"{count.learned} to learn from"
        )
        lack = _lack(count, least, site) if strict else ""
        if not lack:
            yield Finding("class", Verdict.OK, text)
            continue
        too_few += 1
        yield Finding("class", Verdict.NOTE, text, f"{lack}, so the class is left out")
    if found.classes and too_few == len(found.classes):
        text = "no class is large enough, so this site cannot take part"
        yield Finding("classes", Verdict.FAILED, text, "release.min_patients_per_class is its own")


def _lack(count: ClassCount, least: int, site: SiteConfig) -> str:
    """What keeps the site from condensing a class, if anything does."""
    if count.learned < least:
        return f"fewer than {least} groups are left to learn from"
    if site.release.held_out > 0 and count.held_out == 0:
        return "no group of it is held out for the audits"
    return ""


def _patients(found: Survey, study: Study) -> Iterator[Finding]:
    unknown = found.images + found.left_out - found.with_patient
    if isinstance(study.privacy, FormalPrivacy) and study.privacy.unit is Unit.PATIENT and unknown:
        text = f"the patient of {unknown} images is not known"
        hint = "the study hides patients: name the patient of every image (docs/ref-data.md)"
        yield Finding("patients", Verdict.FAILED, text, hint)
    elif unknown:
        text = f"the patient of {unknown} images is not known; each counts as its own"
        yield Finding("patients", Verdict.NOTE, text)


def _copies(found: Survey) -> Iterator[Finding]:
    if found.contradictions:
        text = f"{found.contradictions} films have copies in several classes"
        yield Finding("copies", Verdict.NOTE, text, "one of their labels is wrong")
    if found.exact or found.near:
        text = f"{found.exact} images are equal to another, {found.near} nearly; joined into groups"
        yield Finding("copies", Verdict.NOTE, text)
