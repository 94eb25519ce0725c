"""Every malformed body, inside a frame whose sealing and signature are right."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from wire_kit import Wire, canonical, facts_of, small_study

from fedcondense.errors import ContributionRejected, InternalError
from fedcondense.exchange.contents import decode_body, encode_body, least_contrast
from fedcondense.exchange.release_record import Refusal, build_record
from fedcondense.exchange.sealing import open_sealed
from fedcondense.exchange.terms import terms_of

PIXELS = 3 * 256  # bytes of pixels of the good set


def reason_of(wire: Wire, body: bytes) -> str:
    with pytest.raises(ContributionRejected) as rejected:
        open_sealed(wire.blob(body=body), wire.expectation, wire.opening)
    return rejected.value.reason


def good_arrays(wire: Wire) -> bytearray:
    payload = wire.released().payload
    return bytearray(payload.pixels + payload.labels + payload.soft)


def test_the_good_body_of_the_second_implementation_is_opened(wire):
    opened = open_sealed(wire.blob(), wire.expectation, wire.opening)

    assert opened.site == "site-1"
    assert opened.payload == wire.released().payload
    assert opened.record == wire.released().record


def test_the_packages_writer_and_the_second_implementation_write_the_same_body(wire):
    released = wire.released()

    body = encode_body(released.payload, released.record, terms_of(wire.study))

    assert body == wire.body()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dtype": "float32"}, "dtype"),
        ({"labels_dtype": "int64"}, "dtype"),
        ({"shape": [0, 1, 16, 16]}, "shape"),
        ({"shape": [-1, 1, 16, 16]}, "shape"),
        ({"shape": [2**40, 1, 16, 16]}, "shape"),
        ({"shape": [7, 1, 16, 16]}, "shape"),
        ({"shape": [3, 1, 1, 16, 16]}, "shape"),
        ({"shape": [3, 256]}, "shape"),
        ({"shape": [3, 16, 16, 1]}, "shape"),
        ({"shape": [3, 1, 16, 2**53]}, "shape"),
        ({"shape": [True, 1, 16, 16]}, "shape"),
        ({"shape": ["3", 1, 16, 16]}, "shape"),
        ({"scale": {"lo": "4", "hi": "4"}}, "scale"),
        ({"scale": {"lo": "4", "hi": "-4"}}, "scale"),
        ({"scale": {"lo": "-17", "hi": "4"}}, "scale"),
        ({"scale": {"lo": "-4", "hi": "16.5"}}, "scale"),
        ({"scale": {"lo": "nan", "hi": "4"}}, "scale"),
        ({"scale": {"lo": "-4.0", "hi": "4"}}, "scale"),
        ({"scale": {"lo": -4, "hi": 4}}, "scale"),
        ({"scale": {"lo": "-4"}}, "scale"),
        ({"soft_labels": "float16"}, "soft"),
        ({"method": "random"}, "method"),
        ({"method": "mtt"}, "method"),
        ({"partition": 1}, "partition"),
        ({"start": "real"}, "start"),
        ({"start": "public"}, "start"),
        ({"student_lr": "0.01"}, "rate"),
        ({"recipe": {}}, "recipe"),
        ({"payload_sha256": "0" * 64}, "digest"),
        ({"payload_sha256": "ä"}, "digest"),
        ({"release_record": {}}, "record"),
        ({"approvals": [{"fingerprint": "0" * 64, "signature": "0" * 128}]}, "approvals"),
        ({"approvals": {}}, "contents"),
        ({"partition": "2"}, "contents"),
        ({"partition": True}, "contents"),
        ({"student_lr": 1}, "contents"),
        ({"order": "F"}, "contents"),
        ({"extra": None}, "contents"),
    ],
)
def test_a_wrong_field_is_refused(wire, change, reason):
    assert reason_of(wire, wire.body(wire.contents(**change))) == reason


def test_a_missing_field_is_refused(wire):
    for name in wire.contents():
        contents = {key: value for key, value in wire.contents().items() if key != name}
        assert reason_of(wire, wire.body(contents)) == "contents"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("purpose", "simulation"),
        ("verdict", "refused"),
        ("refusals", ["real-start"]),
        ("refusals", None),
        ("images", 2),
        ("method", "mtt"),
        ("start", "real"),
        ("partition", True),
        ("payload_sha256", "0" * 64),
        ("study_digest", "0" * 64),
        ("classes_left_out", ["normal"]),
        ("statement", "Contains nothing personal."),
        ("audits", {"provenance": "refused"}),
        ("audits", {"provenance": "passed", "membership": "passed"}),
        ("version", 1),
    ],
)
def test_a_record_that_says_something_else_is_refused(wire, field, value):
    contents = wire.contents()
    contents["release_record"] = contents["release_record"] | {field: value}

    assert reason_of(wire, wire.body(contents)) == "record"


def test_a_release_record_with_a_refusal_is_refused_under_purpose_release(wire):
    simulation = Wire(
        small_study(distill={"method": "idm", "start": "real"}), "simulation", keys=wire.keys
    )
    contents = wire.contents(release_record=simulation.released().record)

    assert reason_of(wire, wire.body(contents)) == "record"


def test_a_real_start_is_opened_in_a_simulation_with_its_refusal_in_the_record(wire):
    simulation = Wire(
        small_study(distill={"method": "idm", "start": "real"}), "simulation", keys=wire.keys
    )

    opened = open_sealed(simulation.sealed(), simulation.expectation, simulation.opening)

    assert opened.record["verdict"] == "refused"
    assert opened.record["refusals"] == ["real-start"]


def test_a_real_start_that_hides_its_refusal_is_refused_even_in_a_simulation(wire):
    simulation = Wire(
        small_study(distill={"method": "idm", "start": "real"}), "simulation", keys=wire.keys
    )
    record = simulation.released().record
    audits = record["audits"] | {"provenance": "passed"}
    hidden = record | {"refusals": [], "verdict": "passed", "audits": audits}

    body = simulation.body(simulation.contents(release_record=hidden))

    assert reason_of(simulation, body) == "record"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff\xfe",
        b'{"approvals":[],"approvals":[]}',
        b'{"approvals":NaN}',
        b'{"approvals":1.5}',
        b"[" * 65_000,
        b"{" + b" " * 65_000 + b"}",
        b"\x80\x04\x95\x13\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x05dtype.",
    ],
)
def test_contents_that_are_not_canonical_json_are_refused(wire, text):
    assert reason_of(wire, wire.body(text)) == "contents"


@pytest.mark.parametrize("length", [0, 65_537, 2**31, 2**32 - 1])
def test_a_wrong_length_of_the_contents_is_refused(wire, length):
    body = struct.pack("<I", length) + wire.body()[4:]

    assert reason_of(wire, body) == "contents"


def test_spaced_contents_are_refused(wire):
    text = canonical(wire.contents()).replace(b",", b", ")

    assert reason_of(wire, wire.body(text)) == "contents"


@pytest.mark.parametrize("label", [2, 255])
def test_a_label_that_is_no_class_is_refused(wire, label):
    arrays = good_arrays(wire)
    arrays[-1] = label

    assert reason_of(wire, wire.body(arrays=bytes(arrays))) == "labels"


def test_more_images_of_a_class_than_the_study_allows_are_refused(wire):
    images = np.random.default_rng(1).integers(0, 256, 4 * 256, np.uint8)
    contents = wire.contents(shape=[4, 1, 16, 16])

    assert reason_of(wire, wire.body(contents, images.tobytes() + bytes(4))) == "labels"


def test_a_constant_image_is_refused(wire):
    arrays = good_arrays(wire)
    arrays[256:512] = bytes([77]) * 256

    assert reason_of(wire, wire.body(arrays=bytes(arrays))) == "pixels"


def test_an_image_without_contrast_is_refused(wire):
    arrays = good_arrays(wire)
    arrays[256:512] = bytes([77]) * 255 + bytes([78])

    assert reason_of(wire, wire.body(arrays=bytes(arrays))) == "pixels"


def test_a_scale_that_leaves_no_contrast_is_refused(wire):
    contents = wire.contents(scale={"lo": "0", "hi": "0.0001"})

    assert reason_of(wire, wire.body(contents)) == "pixels"


def test_contrast_is_the_standard_deviation_of_the_flattest_image():
    images = np.array([[0, 0, 2, 2], [5, 5, 5, 9], [0, 255, 0, 255]], np.uint8)

    assert least_contrast(images) == 1.0  # of 0, 0, 2, 2; the second has sqrt(3)


def test_a_changed_pixel_does_not_have_the_digest(wire):
    arrays = good_arrays(wire)
    arrays[0] ^= 1

    assert reason_of(wire, wire.body(arrays=bytes(arrays))) == "digest"


def test_swapped_labels_do_not_have_the_digest(wire):
    arrays = good_arrays(wire)
    arrays[PIXELS:] = b"\x00\x01\x00"

    assert reason_of(wire, wire.body(arrays=bytes(arrays))) == "digest"


@pytest.mark.parametrize("at", ["first", "last"])
def test_padding_that_is_not_zero_is_refused(wire, at):
    body = bytearray(wire.body())
    first = 4 + len(canonical(wire.contents())) + PIXELS + 3
    body[first if at == "first" else -1] = 1

    assert reason_of(wire, bytes(body)) == "padding"


def test_fewer_images_declared_than_there_are_leave_padding_that_is_not_zero(wire):
    assert reason_of(wire, wire.body(wire.contents(shape=[2, 1, 16, 16]))) == "padding"


def test_archives_and_files_of_other_kinds_are_refused(wire):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a", b"b")
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    ceiling = len(wire.body())

    for data in (
        archive.getvalue(),
        array.getvalue(),
        gzip.compress(b"b"),
        b"\x80\x04]\x94K\x01a.",
    ):
        assert reason_of(wire, data.ljust(ceiling, b"\0")) == "contents"


@pytest.mark.parametrize("words", [["constant"], ["unheard-of"], ["duplicate-images"] * 2, [[]]])
def test_a_record_with_a_refusal_that_may_not_stand_there_is_refused(wire, words):
    simulation = replace(wire, purpose="simulation")
    record = simulation.released().record | {"refusals": words}

    assert reason_of(simulation, simulation.body(simulation.contents(release_record=record))) == (
        "record"
    )


def test_a_consistent_record_of_a_refusal_is_no_release(wire):
    payload, terms = wire.released().payload, terms_of(wire.study)
    facts = facts_of(refusals=(Refusal.DUPLICATE,))
    refused = build_record(payload, terms, purpose="release", facts=facts)

    assert reason_of(wire, wire.body(wire.contents(release_record=refused))) == "record"


def test_a_consistent_record_that_hides_a_real_start_is_refused(wire):
    study = small_study(distill={"method": "idm", "start": "real"})
    simulation = Wire(study, "simulation", keys=wire.keys)
    payload = simulation.released().payload
    hidden = build_record(payload, terms_of(study), purpose="simulation", facts=facts_of())

    body = simulation.body(simulation.contents(release_record=hidden))

    assert reason_of(simulation, body) == "record"


def test_contents_of_one_byte_too_many_are_refused_although_there_is_room(wire):
    contents = wire.contents()
    record = contents["release_record"]
    missing = 65_537 - len(canonical(contents))
    contents["release_record"] = record | {"statement": record["statement"] + "x" * missing}

    assert reason_of(wire, wire.body(contents)) == "contents"


@pytest.mark.parametrize(("purpose", "reason"), [("release", "method"), ("simulation", "record")])
def test_a_coreset_is_refused_in_a_release_even_if_the_study_asks_for_it(wire, purpose, reason):
    terms = replace(terms_of(wire.study), method="random")
    body = wire.body(wire.contents(method="random"))

    with pytest.raises(ContributionRejected, match=f": {reason}$"):
        decode_body(body, purpose, terms, round=1)


def test_a_real_start_is_refused_in_a_release_even_if_the_study_asks_for_it(wire):
    study = small_study(distill={"method": "idm", "start": "real"})
    body = Wire(study, "simulation", keys=wire.keys).body()

    with pytest.raises(ContributionRejected, match=r": start$"):
        decode_body(body, "release", terms_of(study), round=1)


def test_a_full_body_without_any_padding_is_read_to_its_end(wire):
    full = wire.released((0, 0, 0, 1, 1, 1)).payload
    contents = wire.contents(shape=[6, 1, 16, 16], payload_sha256=full.sha256)
    record = contents["release_record"]
    missing = 65_536 - len(canonical(contents))
    contents["release_record"] = record | {"statement": record["statement"] + "x" * missing}
    body = wire.body(contents, full.pixels + full.labels)

    assert len(body) == 4 + len(canonical(contents)) + len(full.pixels + full.labels)
    assert reason_of(wire, body) == "record"


@pytest.mark.parametrize("change", [-1, 1])
def test_a_body_of_another_length_is_refused(wire, change):
    body = wire.body()
    changed = body[:change] if change < 0 else body + b"\0"

    with pytest.raises(ContributionRejected, match=r"^contribution rejected: size$"):
        decode_body(changed, "release", terms_of(wire.study), round=1)


def test_a_missing_class_is_allowed_and_named(wire):
    opened = open_sealed(wire.sealed(labels=(1, 1)), wire.expectation, wire.opening)

    assert opened.payload.provenance.left_out == ("normal",)
    assert opened.record["classes_left_out"] == ["normal"]


def test_contents_above_their_ceiling_are_never_written():
    names = [f"{n:03d}" + "\N{GRINNING FACE}" * 77 for n in range(255)]
    wire = Wire(small_study(classes=names))

    with pytest.raises(InternalError, match="above the study's ceiling"):
        wire.sealed(labels=(0,))


def test_a_body_with_soft_labels_and_a_step_size_is_opened(learning):
    opened = open_sealed(learning.blob(), learning.expectation, learning.opening)

    assert opened.payload == learning.released().payload
    assert opened.payload.soft_array().shape == (3, 2)
    assert opened.payload.student_rate == learning.released().record["student_lr"]


def test_both_writers_write_the_same_body_with_soft_labels(learning):
    released = learning.released()

    body = encode_body(released.payload, released.record, terms_of(learning.study))

    assert body == learning.body()


def test_a_study_that_learns_a_step_size_alone_has_no_soft_labels(wire):
    study = small_study(distill={"method": "mtt"})
    hard = Wire(study, opening=wire.opening, server=wire.server, keys=wire.keys)

    opened = open_sealed(hard.sealed(), hard.expectation, hard.opening)

    assert opened.payload.soft == b""
    assert opened.payload.student_rate is not None
    assert reason_of(hard, hard.body(hard.contents(soft_labels="float16"))) == "soft"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"soft_labels": "none"}, "soft"),
        ({"soft_labels": "float32"}, "soft"),
        ({"soft_labels": None}, "contents"),
        ({"soft_labels": True}, "contents"),
        ({"student_lr": None}, "rate"),
        ({"student_lr": "0"}, "rate"),
        ({"student_lr": "-0.01"}, "rate"),
        ({"student_lr": "999999"}, "rate"),
        ({"student_lr": "1e-05"}, "rate"),
        ({"student_lr": "0.000000001"}, "rate"),
        ({"student_lr": 1}, "contents"),
        ({"student_lr": []}, "contents"),
        ({"student_lr": "0.5"}, "record"),
    ],
)
def test_a_wrong_field_of_what_is_learned_is_refused(learning, change, reason):
    assert reason_of(learning, learning.body(learning.contents(**change))) == reason


@pytest.mark.parametrize(
    "row", [(np.nan, 1), (np.inf, 0), (1.5, -0.5), (1, 1), (0, 0), (0.9, 0.08)]
)
@pytest.mark.parametrize("which", [0, 2])
def test_soft_labels_that_are_no_probabilities_are_refused(learning, row, which):
    arrays = good_arrays(learning)
    at = PIXELS + 3 + 4 * which
    arrays[at : at + 4] = np.array(row, "<f2").tobytes()

    assert reason_of(learning, learning.body(arrays=bytes(arrays))) == "soft"


def test_soft_labels_that_were_announced_and_left_out_are_refused(learning):
    arrays = good_arrays(learning)[: PIXELS + 3]

    assert reason_of(learning, learning.body(arrays=bytes(arrays))) == "soft"


def test_soft_labels_that_the_study_does_not_learn_are_padding_that_is_not_zero(wire):
    body = wire.body(arrays=bytes(good_arrays(wire)) + np.array([1, 0] * 3, "<f2").tobytes())

    assert reason_of(wire, body) == "padding"


def test_swapped_soft_labels_do_not_have_the_digest(learning):
    arrays = good_arrays(learning)
    soft = arrays[PIXELS + 3 :]
    arrays[PIXELS + 3 :] = soft[4:8] + soft[:4] + soft[8:]

    assert reason_of(learning, learning.body(arrays=bytes(arrays))) == "digest"


@pytest.mark.parametrize("at", ["first", "last"])
def test_padding_behind_soft_labels_is_zero(learning, at):
    body = bytearray(learning.body())
    first = 4 + len(canonical(learning.contents())) + PIXELS + 3 + 12
    body[first if at == "first" else -1] = 1

    assert reason_of(learning, bytes(body)) == "padding"


@pytest.mark.parametrize("key", ["soft_labels", "student_lr"])
def test_a_record_that_does_not_name_what_leaves_is_refused(learning, key):
    record = {name: of for name, of in learning.released().record.items() if name != key}

    assert reason_of(learning, learning.body(learning.contents(release_record=record))) == "record"


@pytest.mark.parametrize("more", [{"soft_labels": "none"}, {"student_lr": None}])
def test_a_record_that_names_what_does_not_leave_is_refused(wire, more):
    contents = wire.contents()
    contents["release_record"] = contents["release_record"] | more

    assert reason_of(wire, wire.body(contents)) == "record"
