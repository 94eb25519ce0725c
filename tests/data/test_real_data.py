"""The loaders on real radiographs, where they are at hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedcondense.config.scenario import Partition
from fedcondense.config.site import BurnedIn, ImageFolder, ImageNpz
from fedcondense.config.study import ImageSpec
from fedcondense.data.dataset import LabeledImages
from fedcondense.data.loading import load_images
from fedcondense.data.partition import partition_sites
from fedcondense.data.split import cut_validation, train_and_test


@pytest.fixture(scope="module")
def radiographs(real_data: Path) -> LabeledImages:
    source = ImageNpz(kind="npz", path=real_data / "covid_cxr/cxr4_small.npz")
    return load_images(source, ImageSpec(size=32))


def test_the_classes_stand_in_the_order_of_the_data(radiographs):
    assert radiographs.classes == ("COVID", "Bacterial_Pneumonia", "Normal", "Viral_Pneumonia")


def test_the_given_split_is_kept(radiographs):
    train, test = train_and_test(radiographs)

    assert train.counts().tolist() == [300] * 4
    assert test.counts().tolist() == [150] * 4
    assert not set(train.groups) & set(test.groups)


def test_validation_shares_no_group_with_the_rest(radiographs):
    rest, validation = cut_validation(train_and_test(radiographs)[0], 0.2)

    assert not set(rest.groups) & set(validation.groups)
    assert 150 < len(validation) < 330


@pytest.mark.parametrize("kind", ["dirichlet", "even", "site"])
def test_no_group_crosses_a_site(radiographs, kind):
    parts = partition_sites(radiographs, Partition(kind=kind), torch.Generator().manual_seed(0))

    owners = [group for part in parts.values() for group in set(part.groups)]

    assert len(owners) == len(set(owners))
    assert sum(len(part) for part in parts.values()) == 1800


def test_the_sites_of_the_data_are_known(radiographs):
    parts = partition_sites(radiographs, Partition(kind="site"), torch.Generator().manual_seed(0))

    assert {"bimcv_or_unmatched", "guangzhou_wcmc", "rsna_nih"} <= set(parts)


def test_original_files_of_many_kinds_are_read(real_data):
    source = ImageFolder(kind="folder", path=real_data / "originals")

    images = load_images(source, ImageSpec(size=32))

    assert images.classes == ("Bacterial_Pneumonia", "COVID", "Normal", "Viral_Pneumonia")
    assert images.counts().tolist() == [10] * 4
    assert images.images.float().std(dim=(1, 2, 3)).min() > 5  # no film is blank


def test_a_folder_of_dicom_files_without_a_word_on_annotation_is_read_if_allowed(
    real_data, tmp_path
):
    for name, pattern in (("COVID", "1.2.276*"), ("Normal", "*MONOHR1*"), ("Normal", "pydicom*")):
        (tmp_path / name).mkdir(exist_ok=True)
        (path,) = (real_data / "dicom").glob(pattern)
        (tmp_path / name / path.name).symlink_to(path)
    source = ImageFolder(kind="folder", path=tmp_path, burned_in=BurnedIn.UNSTATED)

    images = load_images(source, ImageSpec(size=32))

    # the first two are one film of one patient, the second as its negative
    assert len(set(images.groups)) == len(set(images.patients or ())) == 2
    assert images.groups[0] in images.groups[1:]
    assert images.images.float().std(dim=(1, 2, 3)).min() > 5
