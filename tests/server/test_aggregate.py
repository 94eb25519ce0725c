from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from wire_kit import learning_study, payload_of, small_study

from fedcondense.errors import RunDirectoryError
from fedcondense.exchange.contribution import decode_payload
from fedcondense.exchange.sealing import Opened
from fedcondense.exchange.terms import rate_text
from fedcondense.files.storage import read_arrays, read_json, write_arrays
from fedcondense.server.aggregate import (
    aggregate,
    read_global_set,
    united_rate,
    write_global_set,
)

STUDY = small_study()
LEARNING = learning_study()


def opened(site, labels=(0, 0, 1), seed=0, study=STUDY):
    return Opened(site, payload_of(study, labels, seed), {})


def test_the_union_holds_each_image_with_its_site_in_the_order_of_names():
    united = aggregate([opened("site-b", (1,), 1), opened("site-a", (0, 1), 0)], STUDY)

    assert united.sites == ("site-a", "site-a", "site-b")
    assert united.labels.tolist() == [0, 1, 1]
    assert united.images.tobytes() == (
        payload_of(STUDY, (0, 1), 0).pixels + payload_of(STUDY, (1,), 1).pixels
    )


def test_the_order_of_arrival_changes_nothing():
    one, two = opened("a"), opened("b", seed=1)

    assert aggregate([one, two], STUDY).sha256 == aggregate([two, one], STUDY).sha256


def test_leaving_a_site_out_is_one_call():
    sets = [opened("a"), opened("b", seed=1)]

    without = aggregate([of for of in sets if of.site != "a"], STUDY)

    assert without.sha256 == aggregate(sets[1:], STUDY).sha256
    assert aggregate([], STUDY).images.shape == (0, 1, 16, 16)


def test_the_digest_is_over_form_pixels_and_labels():
    united = aggregate([opened("a", (0,))], STUDY)
    form = b'{"hi":"4","lo":"-4","shape":[1,1,16,16]}\0'

    expected = hashlib.sha256(form + united.images.tobytes() + b"\0").hexdigest()

    assert united.sha256 == expected
    assert replace(united, lo="-3").sha256 != expected
    assert replace(united, labels=np.array([1], np.uint8)).sha256 != expected


def test_decoded_images_are_what_the_site_would_have_decoded():
    contribution = opened("a")

    arrays = aggregate([contribution], STUDY).arrays()

    assert np.array_equal(arrays.images, decode_payload(contribution.payload).images)


def test_a_set_in_another_scale_is_brought_into_the_studys():
    contribution = opened("a")
    halved = replace(contribution, payload=replace(contribution.payload, lo="-2", hi="2"))

    united = aggregate([halved], STUDY)

    wanted = decode_payload(halved.payload).images
    assert (united.lo, united.hi) == ("-4", "4")
    assert np.abs(united.arrays().images - wanted).max() <= 4 / 255 + 1e-6


def test_a_written_set_is_read_back(tmp_path):
    united = aggregate([opened("a"), opened("b", seed=1)], STUDY)

    write_global_set(tmp_path / "global", united, STUDY)

    again = read_global_set(tmp_path / "global")
    assert again.sha256 == united.sha256
    assert (again.sites, again.classes) == (united.sites, STUDY.classes)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_is_a_picture_of_its_stored_pixels(tmp_path, channels):
    study = small_study(image={"size": 16, "channels": channels})
    united = aggregate([opened("a", study=study)], study)

    write_global_set(tmp_path, united, study)

    images = read_json(tmp_path / "manifest.json")["images"]
    assert images[2] == {"label": 1, "png": "a-pneumonia-0002.png", "site": "a"}
    for row, image in enumerate(images):
        with Image.open(tmp_path / "png" / image["png"]) as picture:
            pixels = np.asarray(picture).reshape(16, 16, channels)
        assert np.array_equal(np.moveaxis(pixels, -1, 0), united.images[row])


def test_names_of_pictures_are_safe_and_differ(tmp_path):
    study = small_study(classes=["COVID 19!", "covid-19", "\N{GREEK SMALL LETTER ALPHA}", "x" * 80])
    united = aggregate([opened("a", (0, 1, 2, 3), study=study)], study)

    write_global_set(tmp_path, united, study)

    assert sorted(path.name for path in (tmp_path / "png").iterdir()) == [
        "a-2-0002.png",
        "a-covid-19-0000.png",
        "a-covid-19-0001.png",
        f"a-{'x' * 40}-0003.png",
    ]


def test_a_changed_set_is_not_read(tmp_path):
    united = aggregate([opened("a")], STUDY)
    write_global_set(tmp_path, united, STUDY)
    other = replace(united, images=united.images ^ 1)
    write_global_set(tmp_path / "other", other, STUDY)
    (tmp_path / "other" / "set.safetensors").replace(tmp_path / "set.safetensors")

    with pytest.raises(RunDirectoryError, match="has changed since it was written"):
        read_global_set(tmp_path)


def test_an_unfinished_set_is_not_read(tmp_path):
    write_global_set(tmp_path, aggregate([opened("a")], STUDY), STUDY)
    (tmp_path / "manifest.json").unlink()

    with pytest.raises(RunDirectoryError, match="missing or unfinished"):
        read_global_set(tmp_path)


def learned(site, labels=(0, 0, 1), seed=0, **changes):
    return Opened(site, replace(payload_of(LEARNING, labels, seed), **changes), {})


def of_rate(rate, images):
    return replace(payload_of(LEARNING, (0,) * images), student_rate=rate)


def test_each_image_keeps_its_soft_label():
    united = aggregate([learned("b", (1,), 1), learned("a", (0, 1), 0)], LEARNING)

    assert united.soft.shape == (3, 2)
    assert united.soft.tobytes() == (
        payload_of(LEARNING, (0, 1), 0).soft + payload_of(LEARNING, (1,), 1).soft
    )
    assert united.arrays().soft.tolist() == united.soft.tolist()


def test_the_step_size_of_the_union_is_the_geometric_mean_weighted_by_images():
    # (0.01^1 x 0.08^2)^(1/3) = (6.4e-5)^(1/3) = 0.04; the arithmetic mean would be 0.0567
    rate = united_rate([of_rate("0.01", 1), of_rate("0.08", 2)])

    assert rate == 0.04


def test_twice_and_half_a_step_size_cancel():
    assert united_rate([of_rate("0.02", 3), of_rate("0.005", 3)]) == 0.01


@given(
    rates=st.lists(st.floats(1e-8, 10), min_size=1, max_size=5),
    images=st.lists(st.integers(1, 3), min_size=5, max_size=5),
)
def test_the_step_size_of_the_union_lies_among_the_sites_in_any_order(rates, images):
    sets = [of_rate(rate_text(rate), n) for rate, n in zip(rates, images, strict=False)]

    united = united_rate(sets)

    assert min(rates) * (1 - 1e-5) <= united <= max(rates) * (1 + 1e-5)
    assert united_rate(sets[::-1]) == pytest.approx(united, rel=1.1e-5)


@pytest.mark.parametrize("rate", ["0.00000001", "0.02", "0.0123457", "10"])
def test_sites_that_agree_keep_their_step_size(rate):
    assert rate_text(united_rate([of_rate(rate, n) for n in (1, 2, 3)])) == rate


def test_a_study_that_learns_neither_has_neither():
    united = aggregate([opened("a")], STUDY)

    assert (united.soft, united.student_rate, united.shared.learned) == (None, None, {})
    assert (united.arrays().soft, united.arrays().student_rate) == (None, None)


def test_a_union_of_nobody_has_no_soft_label_and_no_step_size():
    united = aggregate([], LEARNING)

    assert united.soft.shape == (0, 2)
    assert united.student_rate is None


def test_the_digest_covers_soft_labels_and_step_size():
    united = aggregate([learned("a", (0,), student_rate="0.02")], LEARNING)
    form = b'{"hi":"4","lo":"-4","shape":[1,1,16,16],"soft_labels":"float16","student_lr":"0.02"}\0'
    arrays = united.images.tobytes() + b"\0" + united.soft.tobytes()

    assert united.sha256 == hashlib.sha256(form + arrays).hexdigest()
    assert replace(united, student_rate=0.03).sha256 != united.sha256
    assert replace(united, soft=united.soft[:, ::-1]).sha256 != united.sha256
    assert replace(united, soft=None).sha256 != united.sha256


def test_a_written_set_with_soft_labels_is_read_back(tmp_path):
    united = aggregate([learned("a"), learned("b", seed=1)], LEARNING)

    write_global_set(tmp_path, united, LEARNING)

    again = read_global_set(tmp_path)
    assert again.soft.tobytes() == united.soft.tobytes()
    assert again.student_rate == united.student_rate
    assert again.sha256 == united.sha256
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["soft_labels"] == "float16"
    assert manifest["student_lr"] == rate_text(united.student_rate)


def test_a_set_without_its_soft_labels_is_not_read(tmp_path):
    write_global_set(tmp_path, aggregate([learned("a")], LEARNING), LEARNING)
    arrays = read_arrays(tmp_path / "set.safetensors")
    del arrays["soft"]
    write_arrays(tmp_path / "set.safetensors", arrays)

    with pytest.raises(RunDirectoryError, match="has changed since it was written"):
        read_global_set(tmp_path)


def test_the_manifest_of_a_set_that_learned_neither_is_as_it_was(tmp_path):
    write_global_set(tmp_path, aggregate([opened("a")], STUDY), STUDY)

    assert read_json(tmp_path / "manifest.json").keys() == {
        "classes",
        "images",
        "scale",
        "sha256",
        "shape",
        "study_digest",
        "version",
    }
