from __future__ import annotations

from pathlib import Path

import pytest

from fedcondense.config.loading import parse_settings
from fedcondense.config.site import BurnedIn, ImageCsv, ImageFolder, ImageNpz, Phantoms, SiteConfig
from fedcondense.errors import SettingsError

VALUES = {
    "name": "site-1",
    "seed": 7,
    "images": {"kind": "npz", "path": "images.npz"},
    "state": "state",
    "study": "study.toml",
    "study_digest": "0" * 64,
    "run_signing_fingerprint": "1234",
}


def site(**changes) -> SiteConfig:
    return parse_settings(SiteConfig, VALUES | changes, "site.toml")


def test_a_site_has_these_defaults():
    config = site()

    assert (config.threads, config.device) == (1, "cpu")
    assert config.release.min_patients_per_class == 100


@pytest.mark.parametrize(
    ("images", "source"),
    [
        ({"kind": "npz", "path": "a.npz"}, ImageNpz(kind="npz", path=Path("a.npz"))),
        ({"kind": "folder", "path": "a"}, ImageFolder(kind="folder", path=Path("a"))),
        (
            {"kind": "folder", "path": "a", "burned_in": "unstated"},
            ImageFolder(kind="folder", path=Path("a"), burned_in=BurnedIn.UNSTATED),
        ),
        ({"kind": "csv", "path": "a.csv"}, ImageCsv(kind="csv", path=Path("a.csv"), root=None)),
        (
            {"kind": "csv", "path": "a.csv", "root": "films"},
            ImageCsv(kind="csv", path=Path("a.csv"), root=Path("films")),
        ),
        (
            {"kind": "phantoms"},
            Phantoms(kind="phantoms", images_per_class=300, scanners=3, size=64, seed=0),
        ),
    ],
)
def test_images_come_from_one_of_four_kinds_of_source(images, source):
    assert site(images=images).images == source


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda:0", "cuda:11"])
def test_a_device_is_named_as_torch_names_it(device):
    assert site(device=device).device == device


def test_no_default_stands_in_for_what_a_site_must_decide():
    with pytest.raises(SettingsError) as caught:
        parse_settings(SiteConfig, {}, "site.toml")

    assert caught.value.message == "site.toml: " + "; ".join(
        f"{key}: Field required" for key in VALUES
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"name": "../site"}, "name: String should match pattern"),
        ({"name": "Site"}, "name: String should match pattern"),
        ({"name": ""}, "name: String should match pattern"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
        ({"seed": 2**63}, "seed: Input should be less than"),
        ({"images": {"kind": "npz"}}, "images.path: Field required"),
        ({"images": {"path": "a"}}, "images: Unable to extract tag using discriminator 'kind'"),
        ({"images": {"kind": "phantoms", "size": 8}}, "images.size: Input should be greater"),
        ({"study_digest": "0" * 63}, "study_digest: String should match pattern"),
        ({"study_digest": "G" * 64}, "study_digest: String should match pattern"),
        ({"threads": 0}, "threads: Input should be greater than or equal to 1"),
        ({"device": "gpu"}, "device: String should match pattern"),
        ({"device": "cuda"}, "device: String should match pattern"),
        ({"release": {"min_patients_per_class": 0}}, "release.min_patients_per_class: Input"),
        ({"release": {"mode": "study-only"}}, "release.mode: Extra inputs are not permitted"),
        ({"server": {"address": "a:65536", "authority": "a"}}, "server.address: a port is from 1"),
        ({"server": {"address": "a:0", "authority": "a"}}, "server.address: a port is from 1"),
        ({"server": {"address": "a:b", "authority": "a"}}, "server.address: String should match"),
        ({"mode": "study-only"}, "mode: Extra inputs are not permitted"),
    ],
    ids=str,
)
def test_a_wrong_key_of_a_site_is_named(change, named):
    with pytest.raises(SettingsError) as caught:
        site(**change)

    assert caught.value.message.startswith(f"site.toml: {named}")
