"""A site's images for one study: those that a method may learn from, and those kept for audits."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fedcondense.config.site import SiteConfig
from fedcondense.config.study import Study
from fedcondense.data.dataset import LabeledImages, without_small_classes
from fedcondense.data.groups import Grouping
from fedcondense.data.loading import load_images
from fedcondense.data.split import cut_held_out, training_rows
from fedcondense.errors import TooFewImages
from fedcondense.progress import Watch, silent


@dataclass(frozen=True)
class Cohort:
    """Images in the study's form; no group is on both sides.

    `left_out` are the classes that the site may not condense. Under differential privacy it is
    empty: which classes are large is read from noised counts alone.
    """

    train: LabeledImages
    held_out: LabeledImages
    left_out: tuple[str, ...]

    def of_classes(self, labels: tuple[int, ...]) -> Cohort:
        """The images of these classes alone."""
        return Cohort(_of(self.train, labels), _of(self.held_out, labels), self.left_out)


def read_cohort(site: SiteConfig, study: Study, *, watch: Watch = silent) -> Cohort:
    """Read the site's images and part them.

    A class with fewer groups to learn from than the site asks for, or than it has images to make,
    is left out, for small classes leak; and so is one of which no group is held out.

    Raises:
        DataError: the images cannot be used.
        TooFewImages: no class is large enough.
    """
    private = study.privacy.mode != "none"
    images = load_images(
        site.images,
        study.image,
        classes=study.classes,
        watch=watch,
        cache=site.state / "images",
        # which films are copies depends on all of them, which no filter under a guarantee may
        grouping=Grouping.PATIENTS if private else Grouping.COPIES,
    )
    train, held_out = cut_held_out(training_rows(images), site.release.held_out)
    if private:
        return Cohort(train, held_out, ())
    least = max(study.images_per_class, site.release.min_patients_per_class)
    large, _ = without_small_classes(train, least)
    if len(large) == 0:
        raise TooFewImages(
            f"no class has {least} patients or more at this site",
            hint="this site cannot take part, or may lower release.min_patients_per_class",
        )
    kept = set(large.labels.tolist())
    if site.release.held_out > 0:  # what cannot be audited is not condensed
        kept &= set(held_out.labels.tolist())
    if not kept:
        raise TooFewImages(
            "no large class at this site has a patient that is held out for the audits",
            hint="this site cannot take part, or may raise release.held_out",
        )
    labels = tuple(sorted(kept))
    left_out = tuple(name for label, name in enumerate(study.classes) if label not in kept)
    return Cohort(_of(large, labels), _of(held_out, labels), left_out)


def _of(images: LabeledImages, labels: tuple[int, ...]) -> LabeledImages:
    wanted = torch.isin(images.labels, torch.tensor(labels, dtype=torch.int64))
    return images.select(wanted.nonzero().squeeze(1))
