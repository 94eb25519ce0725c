"""What a site's images look like to a study, before anything is computed: for `check`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fedcondense.config.site import ImageSource
from fedcondense.data.dataset import LabeledImages, crossing_groups, group_members, groups_by_class
from fedcondense.data.listing import ImageFile
from fedcondense.data.problems import Naming, Problem
from fedcondense.data.sources import Reader, Reading
from fedcondense.data.split import cut_held_out, training_rows


@dataclass(frozen=True)
class ClassCount:
    """Images of one class.

    Attributes:
        images: all that can be used.
        groups: those whose first image is of this class.
        learned: groups with an image of this class that a method may learn from: what the data
            gives to test and what is held out for the audits is not among them.
        held_out: groups with an image of this class that are held out for the audits.
    """

    name: str
    images: int
    groups: int
    learned: int = 0
    held_out: int = 0


@dataclass(frozen=True)
class Survey:
    """What a source holds. It is the site's own: no figure of it is ever sent.

    Attributes:
        total: rows, usable or not.
        classes: those of the study, or else of the source, in order.
        left_out: usable images of other classes than the study's.
        largest_group: images of the largest group.
        with_patient: images whose patient is known; only if all are can a patient be the unit of
            privacy.
        exact: images that repeat an earlier one pixel for pixel.
        near: further copies that were joined, see `Duplicates`.
        contradictions: films whose copies are of several classes.
        crossing: groups on both sides of the split that the source gives; any is refused.
        problems: what is wrong with the rows that cannot be used.
        copies: the images of each film that has copies, meant as `Naming` allows.
        other_classes: folders with images that are named like no class of the study; they are named
            where files are.
    """

    total: int
    classes: tuple[ClassCount, ...]
    left_out: int
    largest_group: int
    with_patient: int
    exact: int
    near: int
    contradictions: int
    crossing: int
    problems: tuple[Problem, ...]
    copies: tuple[tuple[str, ...], ...] = field(repr=False)
    other_classes: tuple[str, ...] = field(default=(), repr=False)

    @property
    def images(self) -> int:
        """Usable images of these classes."""
        return sum(count.images for count in self.classes)

    @property
    def groups(self) -> int:
        """Their groups."""
        return sum(count.groups for count in self.classes)


def survey(
    source: ImageSource,
    reader: Reader,
    classes: tuple[str, ...] | None = None,
    *,
    naming: Naming = Naming.ROWS,
    held_out: float = 0.0,
) -> Survey:
    """Read all images of `source` and count; images that cannot be read are told, not raised.

    `naming` says whether file names may stand in the result: only where its reader is the operator.
    `held_out` is the share of groups that the site keeps for its audits.

    Raises:
        DataError: the source as a whole cannot be used.
    """
    reading = reader.read(source, classes)
    images, films = reading.images, _copied_films(reading)
    counts = _counts(images, classes or images.classes, held_out)
    return Survey(
        total=reading.total,
        classes=counts,
        left_out=len(images) - sum(count.images for count in counts),
        largest_group=max((len(rows) for rows in group_members(images).values()), default=0),
        with_patient=sum(map(bool, images.patients or ())),
        exact=0 if reading.copies is None else reading.copies.exact,
        near=0 if reading.copies is None else reading.copies.near,
        contradictions=sum(len(set(images.labels[rows].tolist())) > 1 for rows in films),
        crossing=len(crossing_groups(images)),
        problems=tuple(_allowed(problem, naming) for problem in _by_row(reading.problems)),
        copies=tuple(_meant(reading.files, rows, naming) for rows in films),
        other_classes=reading.other_classes if naming is Naming.FILES else (),
    )


def _counts(images: LabeledImages, names: Sequence[str], held_out: float) -> tuple[ClassCount, ...]:
    """What a site would count: `site.cohort` cuts in the same way."""
    learned, held = cut_held_out(training_rows(images), held_out)
    columns = (
        images.counts().tolist(),
        [len(groups) for groups in groups_by_class(images)],
        _groups_with(learned),
        _groups_with(held),
    )
    of_class = dict(zip(images.classes, zip(*columns, strict=True), strict=True))
    return tuple(ClassCount(name, *of_class.get(name, (0, 0, 0, 0))) for name in names)


def _groups_with(images: LabeledImages) -> list[int]:
    """How many groups have an image of each class."""
    seen = set(zip(images.labels.tolist(), images.groups, strict=True))
    of_class = Counter(label for label, _ in seen)
    return [of_class[label] for label in range(len(images.classes))]


def _copied_films(reading: Reading) -> list[list[int]]:
    """The rows of each film that is there more than once."""
    rows_of: dict[int, list[int]] = {}
    if reading.copies is not None:
        for row, first in enumerate(reading.copies.joined.tolist()):
            rows_of.setdefault(first, []).append(row)
    return [rows for rows in rows_of.values() if len(rows) > 1]


def _by_row(problems: Sequence[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: problem.row)


def _allowed(problem: Problem, naming: Naming) -> Problem:
    return problem if naming is Naming.FILES else replace(problem, file="")


def _meant(
    files: Sequence[ImageFile] | None, rows: Sequence[int], naming: Naming
) -> tuple[str, ...]:
    chosen = [files[row] for row in rows] if files is not None else []
    return tuple(f.name if naming is Naming.FILES else f"row {f.row}" for f in chosen)
