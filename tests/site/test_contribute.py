from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hospital_kit import Hospital, films, tiny_study

from fedcondense.config.scenario import ReleaseMode
from fedcondense.data import loading
from fedcondense.distill.source import PlainSource
from fedcondense.errors import FedcondenseError, KeyFileError, ReleaseRefused, TooFewImages
from fedcondense.files.storage import read_arrays
from fedcondense.progress import Step
from fedcondense.site import checkpoint, cohort
from fedcondense.site import contribute as module
from fedcondense.site import sources as granting
from fedcondense.site.checkpoint import FileCheckpoints

pytestmark = pytest.mark.usefixtures("audits_pass")

OTHER_RUN = "f" * 32
PLANTED = ("Mustermann", "Erika^1964", "film of Frau M")


@pytest.fixture
def looks(monkeypatch) -> list[Path]:
    """One entry for every time that images are read."""
    seen = []

    def spy(source, *args, **options):
        seen.append(source.path)
        return loading.load_images(source, *args, **options)

    monkeypatch.setattr(cohort, "load_images", spy)
    return seen


@pytest.fixture
def condensed(monkeypatch) -> list[PlainSource]:
    """Every source that a method was given."""
    sources = []

    class Spy(PlainSource):
        def __init__(self, *args, **options) -> None:
            super().__init__(*args, **options)
            sources.append(self)

    monkeypatch.setattr(granting, "PlainSource", Spy)
    return sources


@pytest.fixture
def hospital(tmp_path) -> Hospital:
    return Hospital(tmp_path)


def forms_of(text: str) -> list[bytes]:
    return [text.encode(code) for code in ("utf-8", "utf-16-le", "utf-32-le")]


def holds(data: bytes, text: str) -> bool:
    return any(form in data for form in forms_of(text))


def sealed_files(hospital: Hospital) -> list[Path]:
    return list(hospital.folder.rglob("*.sealed"))


def interrupted_at(iteration: int, steps: list[int] | None = None):
    def watch(step: Step) -> None:
        if step.stage == "condensing":
            if steps is not None:
                steps.append(step.done)
            if step.done == iteration:
                raise KeyboardInterrupt

    return watch


def test_the_server_can_open_what_a_site_contributes(hospital):
    opened = hospital.open(hospital.contribute())

    assert opened.site == "site-1"
    assert opened.payload.shape == (6, 1, 16, 16)
    assert opened.payload.label_array().tolist() == [0, 0, 1, 1, 2, 2]
    assert opened.record == hospital.state.record()


def test_what_the_server_reads_is_the_set_that_the_site_kept(hospital):
    opened = hospital.open(hospital.contribute())

    kept = hospital.state.synthetic()["images"]
    lowest, highest = float(opened.payload.lo), float(opened.payload.hi)
    read = lowest + opened.payload.pixel_array() * ((highest - lowest) / 255)
    half_a_step = (highest - lowest) / 255 / 2

    assert np.abs(read - np.clip(kept, lowest, highest)).max() <= half_a_step + 1e-6


def test_the_same_request_is_answered_alike_without_another_look_at_an_image(hospital, looks):
    first = hospital.contribute()
    second = hospital.contribute()

    assert first == second
    assert len(looks) == 1


def test_another_run_is_sealed_anew_from_the_same_set(hospital, looks):
    first = hospital.contribute()
    second = hospital.contribute(run=OTHER_RUN)

    assert first != second
    assert len(looks) == 1
    assert hospital.open(second, run=OTHER_RUN).payload == hospital.open(first).payload


def test_two_sites_with_equal_seed_and_images_keep_equal_sets(tmp_path):
    sets = []
    for name in ("one", "two"):
        hospital = Hospital(tmp_path / name)
        hospital.contribute()
        sets.append(read_arrays(hospital.state.folder / "synthetic.safetensors"))

    for name, array in sets[0].items():
        np.testing.assert_array_equal(array, sets[1][name])


def test_a_class_with_too_few_patients_is_left_out_and_named(tmp_path, condensed):
    # six films of three patients: the class is small although its films are many
    few = films((4, 3, 4), films_each=2)
    hospital = Hospital(tmp_path, arrays=few, least=4)

    opened = hospital.open(hospital.contribute())

    assert hospital.state.figures().left_out == ("Normal",)
    assert hospital.state.figures().class_counts == {"COVID": 8, "Normal": 0, "Pneumonia": 8}
    assert opened.payload.label_array().tolist() == [0, 0, 2, 2]
    assert [source.labels for source in condensed] == [(0, 2)]


def test_a_class_needs_as_many_patients_as_synthetic_images_whatever_the_site_allows(tmp_path):
    hospital = Hospital(tmp_path, arrays=films((2, 1, 2)), least=1)

    hospital.contribute()

    assert hospital.study.images_per_class == 2
    assert hospital.state.figures().left_out == ("Normal",)


def test_a_site_without_a_large_class_says_so(tmp_path):
    hospital = Hospital(tmp_path, least=5)

    with pytest.raises(TooFewImages) as caught:
        hospital.contribute()

    assert caught.value.message == "no class has 5 patients or more at this site"
    assert caught.value.hint == (
        "this site cannot take part, or may lower release.min_patients_per_class"
    )
    assert not sealed_files(hospital)


def test_test_images_are_never_condensed(tmp_path, condensed):
    arrays = films((6, 6, 6))
    is_test = np.arange(len(arrays["labels"])) % 3 == 0
    arrays["split"] = np.where(is_test, "test", "train")
    hospital = Hospital(tmp_path, arrays=arrays)

    hospital.contribute()
    (source,) = condensed
    seen = {image.tobytes() for image in source._images.numpy()}

    assert seen == {image.tobytes() for image in arrays["images"][~is_test]}
    assert hospital.state.figures().images == 12


def test_what_began_as_real_images_is_refused_and_nothing_is_sealed(tmp_path):
    hospital = Hospital(tmp_path, study=tiny_study(start="real"))

    with pytest.raises(ReleaseRefused) as caught:
        hospital.contribute()

    assert caught.value.exit_code == 3
    assert "real-start" in caught.value.message
    assert not sealed_files(hospital)


def test_a_study_on_one_machine_may_look_at_a_refused_set(tmp_path):
    hospital = Hospital(tmp_path, study=tiny_study(start="real"))

    opened = hospital.open(hospital.contribute(mode=ReleaseMode.STUDY_ONLY), purpose="simulation")

    assert opened.payload.provenance.start == "real"
    assert "real-start" in json.dumps(opened.record)


def test_a_set_studied_on_one_machine_is_still_refused_for_release(tmp_path):
    hospital = Hospital(tmp_path, study=tiny_study(start="real"))
    hospital.contribute(mode=ReleaseMode.STUDY_ONLY)

    with pytest.raises(ReleaseRefused):
        hospital.contribute(run=OTHER_RUN)

    assert [path.stem for path in sealed_files(hospital)] == [hospital.description().run]


def test_a_kill_between_condensing_and_sealing_loses_nothing(hospital, looks, monkeypatch):
    def killed(*args: object, **options: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "seal", killed)
        with pytest.raises(KeyboardInterrupt):
            hospital.contribute()
    kept = hospital.state.synthetic()["images"]

    opened = hospital.open(hospital.contribute())

    assert len(looks) == 1
    np.testing.assert_array_equal(hospital.state.synthetic()["images"], kept)
    assert opened.payload.shape[0] == len(kept)


def test_an_interrupted_condensation_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    often = functools.partial(FileCheckpoints, interval=0.0)
    monkeypatch.setattr(checkpoint, "FileCheckpoints", often)
    study = tiny_study(iterations=6, push_interval=2)
    whole, broken = (Hospital(tmp_path / name, study=study) for name in ("whole", "broken"))
    steps: list[int] = []
    whole.contribute()

    with pytest.raises(KeyboardInterrupt):
        broken.contribute(watch=interrupted_at(4, steps))
    broken.contribute(watch=interrupted_at(0, steps))

    assert steps == [1, 2, 3, 4, 4, 5, 6]  # the fourth was not kept yet
    assert not broken.state.checkpoint.exists()
    for name, array in whole.state.synthetic().items():
        np.testing.assert_array_equal(broken.state.synthetic()[name], array)


def test_a_checkpoint_of_other_images_is_not_gone_on_from(tmp_path, monkeypatch):
    often = functools.partial(FileCheckpoints, interval=0.0)
    monkeypatch.setattr(checkpoint, "FileCheckpoints", often)
    hospital = Hospital(tmp_path, study=tiny_study(iterations=4))
    steps: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        hospital.contribute(watch=interrupted_at(3))
    np.savez(tmp_path / "images.npz", **films((5, 5, 5)))

    hospital.contribute(watch=interrupted_at(0, steps))

    assert steps == [1, 2, 3, 4]


def test_no_name_of_a_patient_is_in_anything_that_leaves_or_is_kept_beside_it(tmp_path):
    arrays = films()
    rows = len(arrays["labels"])
    for key, name in zip(("patient_id", "group", "name"), PLANTED, strict=True):
        arrays[key] = np.array([f"{name} {row}" for row in range(rows)])
    hospital = Hospital(tmp_path, arrays=arrays)

    blob = hospital.contribute()
    payload = hospital.open(blob).payload
    kept = b"".join(p.read_bytes() for p in hospital.state.folder.rglob("*") if p.is_file())
    archive = (tmp_path / "images.npz").read_bytes()

    said = {
        "sealed": blob,
        "opened": hospital.plaintext(blob),
        "payload": payload.pixels + payload.labels + repr(payload).encode(),
        "kept": kept,
    }
    assert holds(said["opened"], "noise")  # the search does find what is there
    assert all(holds(archive, name) for name in PLANTED)
    assert not [
        (what, name) for what, data in said.items() for name in PLANTED if holds(data, name)
    ]


def test_an_error_of_a_site_names_no_patient(tmp_path):
    arrays = films()
    rows = len(arrays["labels"])
    arrays["patient_id"] = np.array([PLANTED[0]] * rows)
    arrays["split"] = np.array(["train", "test"] * (rows // 2))
    hospital = Hospital(tmp_path, arrays=arrays)

    with pytest.raises(FedcondenseError) as caught:
        hospital.contribute()

    assert PLANTED[0] not in caught.value.message + caught.value.hint


def test_without_its_key_a_site_seals_nothing_and_loses_no_set(hospital, looks):
    key = hospital.folder / "keys" / "signing.key"
    secret = key.read_bytes()
    key.unlink()
    with pytest.raises(KeyFileError):
        hospital.contribute()

    descriptor = os.open(key, os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(descriptor, secret)
    os.close(descriptor)
    hospital.contribute()

    assert len(looks) == 1
    assert len(sealed_files(hospital)) == 1


def test_a_class_without_a_held_out_patient_is_left_out_and_named(tmp_path):
    # of the patients of one class, none is held out at this share; of the others some are
    few = films((12, 2, 12))
    hospital = Hospital(tmp_path, arrays=few, least=2, held_out=0.2)

    hospital.contribute()

    assert hospital.state.figures().left_out == ("Normal",)


def test_a_refused_set_stays_refused_until_somebody_types_preview(tmp_path, looks):
    hospital = Hospital(tmp_path, study=tiny_study(start="real"))
    for _ in range(2):
        with pytest.raises(ReleaseRefused, match="real-start"):
            hospital.contribute()

    assert len(looks) == 1
    with pytest.raises(ReleaseRefused):
        module.preview(hospital.site, hospital.study, round=1)
    assert len(looks) == 2
    with pytest.raises(ReleaseRefused, match="no more are looked at"):
        module.preview(hospital.site, hospital.study, round=1)
    assert len(looks) == 2
