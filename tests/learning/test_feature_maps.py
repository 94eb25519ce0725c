from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from fedcondense.config.loading import parse_settings
from fedcondense.config.study import Study
from fedcondense.learning import feature_maps
from fedcondense.learning.augment import augment
from fedcondense.learning.feature_maps import (
    PublicMap,
    public_maps,
    random_images,
    unit_embeddings,
)


def study_of(*, seed: int = 0, **other) -> Study:
    values = {
        "name": "toy",
        "classes": ["a", "b"],
        "image": {"size": 16},
        "network": {"width": 4, "depth": 2},
        "images_per_class": 1,
        "quorum": 1,
        "seed": seed,
        "distill": {"method": "dm"},
    }
    return parse_settings(Study, values | other, "toy")


@pytest.fixture(scope="module")
def one_map() -> PublicMap:
    return public_maps(study_of(), 1)[0]


def pictures(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 1, 16, 16, generator=torch.Generator().manual_seed(seed))


def weights_of(public_map: PublicMap) -> torch.Tensor:
    return torch.cat([p.flatten() for p in public_map.network.parameters()])


def test_a_study_has_the_same_maps_everywhere():
    before = torch.random.get_rng_state()

    two, three = public_maps(study_of(), 2, views=2), public_maps(study_of(), 3, views=2)

    for one, other in zip(two, three, strict=False):
        assert torch.equal(weights_of(one), weights_of(other))
        assert torch.equal(one.centre, other.centre)
        assert torch.equal(one.views[1].uniform, other.views[1].uniform)
    assert torch.equal(before, torch.random.get_rng_state())


def test_every_map_and_every_public_seed_has_a_network_of_its_own():
    maps = [*public_maps(study_of(), 3), *public_maps(study_of(seed=1), 3)]

    assert len({tuple(weights_of(m).tolist()) for m in maps}) == 6


def test_a_map_learns_nothing(one_map):
    assert not any(p.requires_grad for p in one_map.network.parameters())


def test_an_embedding_is_the_networks_own_seen_from_the_centre_at_length_1(one_map):
    images = pictures(5)

    embedded = unit_embeddings(one_map, images)

    away = one_map.network.features(images) - one_map.centre
    assert_close(embedded, away / away.norm(dim=1, keepdim=True))
    assert_close(embedded.norm(dim=1), torch.ones(5))


def test_centre_and_scale_are_those_of_public_random_images(one_map, monkeypatch):
    shown = []
    monkeypatch.setattr(
        feature_maps,
        "random_images",
        lambda *a, **k: shown.append(random_images(*a, **k)) or shown[0],
    )
    again = public_maps(study_of(), 1)[0]

    features = again.network.features(shown[0])
    assert features.shape == (256, 4 * 4 * 4)
    assert_close(again.centre, features.mean(dim=0))
    assert again.scale == pytest.approx(float(features.var(dim=0, correction=0).sum()), rel=1e-4)
    assert torch.equal(again.centre, one_map.centre)


def test_seen_from_the_centre_images_differ_by_more_of_their_length(one_map):
    # behind a ReLU features are positive, so that seen from zero all images look alike
    features = one_map.network.features(pictures(40))
    from_zero = features / features.norm(dim=1, keepdim=True)
    from_centre = unit_embeddings(one_map, pictures(40))

    assert from_centre.var(dim=0).sum() > 3 * from_zero.var(dim=0).sum()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_an_image_with_a_pixel_that_is_no_number_is_the_zero_vector(one_map, bad):
    images = pictures(3)
    good = unit_embeddings(one_map, images)
    images[1, 0, 7, 7] = bad

    embedded = unit_embeddings(one_map, images)

    assert torch.equal(embedded[1], torch.zeros_like(embedded[1]))
    assert torch.equal(embedded[[0, 2]], good[[0, 2]])


@given(exponent=st.floats(-38, 38))
def test_no_image_is_longer_than_1_however_bright(exponent):
    embedded = unit_embeddings(public_map_of_depth_1(), pictures(2) * 10.0**exponent)

    assert bool(torch.isfinite(embedded).all())
    assert float(embedded.norm(dim=1).max()) <= 1 + 1e-5


def public_map_of_depth_1() -> PublicMap:
    if not _KEPT:
        _KEPT.extend(public_maps(study_of(network={"width": 4, "depth": 1}), 1))
    return _KEPT[0]


_KEPT: list[PublicMap] = []


def test_gradients_reach_the_pixels_also_of_an_image_in_the_centre(one_map):
    images = pictures(2).requires_grad_()
    central = PublicMap(
        one_map.network, (None,), one_map.network.features(images[:1]).detach()[0], 1.0
    )

    (gradient,) = torch.autograd.grad(unit_embeddings(central, images).sum(), images)

    assert bool(torch.isfinite(gradient).all())
    assert float(gradient[1].abs().sum()) > 0


def test_views_are_averaged_before_the_length_becomes_1():
    public_map = public_maps(study_of(), 1, views=3)[0]
    images = pictures(4)

    embedded = unit_embeddings(public_map, images)

    first, *others = public_map.views
    assert first is None
    assert len(others) == 2
    mean = sum(public_map.network.features(augment(images, v)) for v in public_map.views) / 3
    away = mean - public_map.centre
    assert_close(embedded, away / away.norm(dim=1, keepdim=True))


def test_random_images_have_the_spectrum_of_photographs():
    images = random_images(400, channels=3, size=32, generator=torch.Generator().manual_seed(0))

    assert images.shape == (400, 3, 32, 32)
    assert_close(images.mean(dim=(2, 3)), torch.zeros(400, 3), atol=1e-5, rtol=0)
    assert_close(images.std(dim=(2, 3)), torch.ones(400, 3))
    amplitude = torch.fft.rfft2(images).abs().square().mean(dim=(0, 1)).sqrt()
    # twice the frequency has half the amplitude, along both axes and between them
    for y, x in [(0, 3), (3, 0), (2, 2), (0, 5)]:
        assert float(amplitude[2 * y, 2 * x] / amplitude[y, x]) == pytest.approx(0.5, rel=0.1)
