from __future__ import annotations

import stat

import pytest
import torch

from fedcondense.config.loading import load_settings, parse_settings
from fedcondense.config.scenario import Scenario
from fedcondense.config.site import SiteConfig
from fedcondense.config.study import load_study
from fedcondense.data.dataset import LabeledImages
from fedcondense.data.loading import load_images
from fedcondense.exchange.keys import SigningKey
from fedcondense.exchange.run_description import verify_description
from fedcondense.research.hospitals import Consortium, build_consortium

SCENARIO = parse_settings(
    Scenario,
    {
        "name": "toy",
        "distill": {"method": "idm"},
        "image": {"size": 16},
        "network": {"depth": 2},
        "images": {"kind": "phantoms"},
        "site": {"min_patients_per_class": 7},
    },
    "toy.toml",
)
STUDY = SCENARIO.study(("a", "b"), 2, 0)


def images(first: int) -> LabeledImages:
    pixels = torch.arange(first, first + 6, dtype=torch.uint8).view(6, 1, 1, 1)
    groups = tuple(f"patient-{first + i}" for i in range(6))
    labels = torch.tensor([0, 1] * 3)
    return LabeledImages(
        pixels.expand(6, 1, 16, 16), labels, ("a", "b"), groups, None, ("train",) * 6
    )


PARTS = {"site-1": images(0), "site-2": images(100)}


def build(folder, scenario=SCENARIO) -> Consortium:
    return build_consortium(folder, scenario, STUDY, PARTS)


def test_every_site_has_settings_that_load_and_pin_the_study_and_the_signer(tmp_path):
    built = build(tmp_path)

    for name in PARTS:
        site = load_settings(SiteConfig, tmp_path / "sites" / name / "site.toml")
        study = load_study(site.study)
        pinned = site.run_signing_fingerprint
        signed = built.run.description_path.read_bytes()
        assert site == built.sites[name]
        assert study.digest == site.study_digest == STUDY.digest
        assert verify_description(signed, pinned=pinned, study=study).purpose == "release"


def test_a_site_holds_its_own_images_and_no_other(tmp_path):
    built = build(tmp_path)

    found = load_images(built.sites["site-2"].images, STUDY.image, classes=STUDY.classes)

    assert found.groups == PARTS["site-2"].groups
    assert torch.equal(found.images, PARTS["site-2"].images)


def test_sites_have_seeds_and_keys_of_their_own_and_only_theirs_are_enrolled(tmp_path):
    built = build(tmp_path)

    keys = {
        name: SigningKey.load(tmp_path / "sites" / name / "keys" / "signing.key") for name in PARTS
    }
    enrolled = {name: of.public for name, of in built.run.enrolled.items()}
    assert enrolled == {name: key.public for name, key in keys.items()}
    assert len({site.seed for site in built.sites.values()}) == 2


def test_a_sites_folder_is_closed_to_others(tmp_path):
    build(tmp_path)

    for name in PARTS:
        assert stat.S_IMODE((tmp_path / "sites" / name).stat().st_mode) == 0o700


def test_the_opening_key_is_nowhere_on_the_disk(tmp_path):
    built = build(tmp_path)

    secret = tmp_path.parent / "probe.key"
    built.opening_key.save(secret)
    hidden = secret.read_bytes().split(b"\n")
    longest = max(hidden, key=len)
    assert len(longest) >= 32
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 8
    assert not any(longest in path.read_bytes() for path in files)


def test_built_again_sites_keep_their_keys_and_the_run_is_another(tmp_path):
    first = build(tmp_path)
    enrolled, run = first.run.enrolled, first.run.description().run

    second = build(tmp_path)

    assert second.run.enrolled == enrolled
    assert second.run.description().run != run


@pytest.mark.parametrize(
    ("release", "purpose"), [("enforced", "release"), ("study-only", "simulation")]
)
def test_the_purpose_of_a_run_follows_the_scenario(tmp_path, release, purpose):
    scenario = parse_settings(
        Scenario, SCENARIO.model_dump(mode="json", exclude_none=True) | {"release": release}, "x"
    )

    assert build(tmp_path, scenario).run.description().purpose == purpose
