from __future__ import annotations

import functools
import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hospital_kit import CLASSES, Hospital, films, tiny_study
from safetensors.numpy import load_file

from fedcondense.config.loading import parse_settings
from fedcondense.config.study import Study
from fedcondense.data.dataset import LabeledImages
from fedcondense.distill.trajectories import Course, Expert, ExpertStore
from fedcondense.errors import ExpertsRejected
from fedcondense.files.storage import read_arrays
from fedcondense.learning.randomness import Seed
from fedcondense.site import checkpoint, experts
from fedcondense.site.checkpoint import FileCheckpoints
from fedcondense.site.experts import ExpertFiles, experts_of

pytestmark = pytest.mark.usefixtures("audits_pass")

MINE, OTHER = "ab" * 32, "cd" * 32
HINT = "delete that folder: they are trained anew"
COURSES = {
    "method": "mtt",
    "iterations": 2,
    "student_steps": 2,
    "synthetic_batch": 4,
    "expert_epochs": 1,
    "max_start": 2,
    "experts": {"count": 2, "epochs": 2, "batch": 4},
}


def study_of(distill=COURSES, **changes) -> Study:
    values = tiny_study().model_dump(mode="json")
    return parse_settings(Study, values | {"distill": distill} | changes, "tiny")


def an_expert(seed: int = 0) -> Expert:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(3, 7, generator=generator)
    return Expert(weights, Course(torch.tensor([1.5, 0.5]), torch.tensor([0.25, 0.75])))


def kept(folder: Path, *numbers: int) -> ExpertFiles:
    files = ExpertFiles(folder, MINE)
    for number in numbers:
        files.keep(number, an_expert(number))
    return files


def images(pixel: int = 0) -> LabeledImages:
    pixels = torch.full((2, 1, 16, 16), pixel, dtype=torch.uint8)
    return LabeledImages(pixels, torch.tensor([0, 1]), CLASSES, ("p", "q"), None, None)


def test_an_expert_comes_back_bit_by_bit(tmp_path):
    kept(tmp_path, 0, 12)

    files = ExpertFiles(tmp_path, MINE)

    assert isinstance(files, ExpertStore)
    for number in (0, 12):
        expert = an_expert(number)
        rows = torch.stack([files.weights(number, epoch) for epoch in range(3)])
        assert torch.equal(rows, expert.weights)
        assert torch.equal(files.course(number).losses, expert.course.losses)
        assert torch.equal(files.course(number).accuracies, expert.course.accuracies)
    assert [number for number in range(14) if files.has(number)] == [0, 12]


def test_weights_that_came_back_may_be_written_to(tmp_path):
    files = kept(tmp_path, 0)

    files.weights(0, 1).zero_()

    assert torch.equal(files.weights(0, 1), an_expert().weights[1])


def test_an_experts_file_is_read_whole_but_once(tmp_path, monkeypatch):
    kept(tmp_path, 0)
    files, reads = ExpertFiles(tmp_path, MINE), []

    def counted(path):
        reads.append(path)
        return read_arrays(path)

    monkeypatch.setattr(experts, "read_arrays", counted)
    for epoch in range(3):
        files.weights(0, epoch)
        files.course(0)

    assert len(reads) == 1


def test_nothing_is_written_before_the_first_expert(tmp_path):
    files = ExpertFiles(tmp_path / "experts", MINE)

    assert not files.has(0)
    assert not (tmp_path / "experts").exists()


def test_the_folder_is_the_owners_alone(tmp_path):
    before = os.umask(0)
    try:
        files = kept(tmp_path / "experts", 0)
    finally:
        os.umask(before)

    assert stat.S_IMODE(files.folder.stat().st_mode) == 0o700


def test_experts_are_raw_numbers_with_a_manifest(tmp_path):
    files = kept(tmp_path, 3)

    arrays = load_file(files.folder / "expert-003.safetensors")

    assert {name: array.shape for name, array in arrays.items()} == {
        "weights": (3, 7),
        "losses": (2,),
        "accuracies": (2,),
    }
    assert sorted(path.name for path in files.folder.iterdir()) == [
        "expert-003.safetensors",
        "lock",
        "manifest.json",
    ]


def test_an_expert_that_somebody_wrote_meanwhile_stays(tmp_path):
    reader = kept(tmp_path, 0)
    reader.course(0)

    ExpertFiles(tmp_path, MINE).keep(0, an_expert(1))

    assert torch.equal(reader.weights(0, 2), an_expert(0).weights[2])
    assert torch.equal(ExpertFiles(tmp_path, MINE).weights(0, 2), an_expert(0).weights[2])


def test_a_file_without_its_line_in_the_manifest_is_not_trained(tmp_path):
    files = kept(tmp_path, 0)  # as where a run was killed between the file and its line
    shutil.copy(files._path(0), files._path(1))

    assert not ExpertFiles(tmp_path, MINE).has(1)
    with pytest.raises(ExpertsRejected):
        ExpertFiles(tmp_path, MINE).weights(1, 0)


def test_experts_kept_by_several_threads_are_all_in_the_manifest(tmp_path):
    def keep(number: int) -> None:
        ExpertFiles(tmp_path, MINE).keep(number, an_expert(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(keep, range(24)))

    again = ExpertFiles(tmp_path, MINE)
    assert all(again.has(number) for number in range(24))
    assert all(torch.equal(again.weights(n, 1), an_expert(n).weights[1]) for n in range(24))


def rejected(folder: Path, look) -> ExpertsRejected:
    with pytest.raises(ExpertsRejected) as caught:
        look(ExpertFiles(folder, MINE))
    assert caught.value.hint == HINT
    return caught.value


@pytest.mark.parametrize("look", [lambda f: f.weights(0, 0), lambda f: f.course(0)])
@pytest.mark.parametrize("where", [0, -1], ids=["first byte", "last byte"])
def test_a_changed_byte_is_refused(tmp_path, where, look):
    path = kept(tmp_path, 0)._path(0)
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)

    error = rejected(tmp_path, look)

    assert error.message == f"the experts in {path.parent} have changed on disk"
    assert error.code == "FC302"


def test_a_file_of_another_expert_is_refused(tmp_path):
    files = kept(tmp_path, 0, 1)
    shutil.copy(files._path(1), files._path(0))

    error = rejected(tmp_path, lambda f: f.weights(0, 0))

    assert error.message == f"the experts in {files.folder} have changed on disk"


def test_a_missing_file_is_refused(tmp_path):
    files = kept(tmp_path, 0)
    files._path(0).unlink()

    error = rejected(tmp_path, lambda f: f.course(0))

    assert error.message == f"the experts in {files.folder} have changed on disk"


def test_experts_of_another_study_are_refused(tmp_path):
    mine, other = kept(tmp_path, 0), ExpertFiles(tmp_path, OTHER)
    assert not other.has(0)  # each has its folder

    shutil.copytree(mine.folder, other.folder)
    with pytest.raises(ExpertsRejected) as caught:
        other.has(0)

    assert caught.value.message == (
        f"the experts in {other.folder} are those of other images or another study"
    )
    assert caught.value.hint == HINT


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "{}", '{"experts": {}}'])
def test_a_manifest_that_is_none_is_refused(tmp_path, text):
    files = kept(tmp_path, 0)
    (files.folder / "manifest.json").write_text(text)

    error = rejected(tmp_path, lambda f: f.has(0))

    assert error.message.startswith(f"the experts in {files.folder} ")


SEED = Seed(11)  # of the method


def site_of(tmp_path, **changes):
    hospital = Hospital(tmp_path)
    return hospital.site.model_copy(update=changes)


def test_experts_lie_in_the_state_directory_or_where_the_site_says(tmp_path):
    site = site_of(tmp_path)

    assert experts_of(site, study_of(), images(), SEED).folder.parent == tmp_path / "experts"
    elsewhere = site.model_copy(update={"experts": tmp_path / "large disk"})
    assert (
        experts_of(elsewhere, study_of(), images(), SEED).folder.parent == tmp_path / "large disk"
    )


def test_all_that_an_expert_depends_on_gives_it_another_folder(tmp_path):
    site, study = site_of(tmp_path), study_of()
    wanted = COURSES["experts"]
    changed = [
        (site, study, images(), Seed(12)),
        (site, study, images(pixel=1), SEED),
        (site, study_of(network={"width": 8, "depth": 2}), images(), SEED),
        (site, study_of(image={"size": 16, "mean": 0.4}), images(), SEED),
        (site, study_of(classes=["x", *CLASSES[1:]]), images(), SEED),
        (site, study_of(COURSES | {"experts": wanted | {"rate": 0.5}}), images(), SEED),
        (site, study_of(COURSES | {"experts": wanted | {"epochs": 3}}), images(), SEED),
    ]

    folders = {experts_of(*case).folder for case in [(site, study, images(), SEED), *changed]}

    assert len(folders) == len(changed) + 1


def test_studies_that_agree_in_it_share_experts(tmp_path):
    site = site_of(tmp_path)
    agreeing = [
        study_of(),
        study_of(COURSES | {"method": "pruned-mtt", "iterations": 9}),
        study_of(COURSES | {"experts": COURSES["experts"] | {"count": 7}}),
        study_of(images_per_class=1),
        study_of({"method": "idm", "queue": "experts", "experts": COURSES["experts"]}),
    ]

    assert len({experts_of(site, study, images(), SEED).folder for study in agreeing}) == 1


def hospital_of(tmp_path, **distill) -> Hospital:
    return Hospital(tmp_path, study=study_of(COURSES | distill), arrays=films((4, 4, 4)))


@pytest.mark.parametrize("method", ["mtt", "pruned-mtt"])
def test_a_set_of_matched_trajectories_carries_its_step_size_and_no_expert(tmp_path, method):
    hospital = hospital_of(tmp_path, method=method)
    steps = []

    blob = hospital.contribute(watch=steps.append)

    opened = hospital.open(blob)
    learned = float(hospital.state.synthetic()["student_rate"])
    assert float(opened.payload.student_rate) == pytest.approx(learned, rel=1e-5)
    assert opened.payload.soft_array() is None
    assert [s.stage for s in steps if s.stage != "reading images"] == (
        ["training experts"] * 4 + ["condensing"] * 2
    )
    (folder,) = (tmp_path / "experts").iterdir()
    assert len(list(folder.glob("expert-*.safetensors"))) == 2
    weights = load_file(folder / "expert-000.safetensors")["weights"][-1].tobytes()
    assert weights[:64] not in hospital.plaintext(blob)


def test_learned_labels_travel_with_the_set(tmp_path):
    hospital = hospital_of(tmp_path, label_rate=2.0)

    opened = hospital.open(hospital.contribute())

    soft = torch.from_numpy(opened.payload.soft_array().astype("float32"))
    assert torch.allclose(soft, torch.from_numpy(hospital.state.synthetic()["soft"]), atol=1e-3)
    assert soft.shape == (6, 3)


def test_another_study_finds_the_experts_trained(tmp_path):
    hospital = hospital_of(tmp_path)
    hospital.contribute()
    stages = set()

    hospital.study = study_of(COURSES | {"method": "pruned-mtt"})
    hospital.contribute(watch=lambda step: stages.add(step.stage))

    assert "condensing" in stages
    assert "training experts" not in stages


EXPERTS, CONDENSING = "training experts", "condensing"


@pytest.mark.parametrize(
    ("killed_at", "left"),
    [
        ((EXPERTS, 1), [(EXPERTS, e) for e in (1, 2, 3, 4)] + [(CONDENSING, 1), (CONDENSING, 2)]),
        ((EXPERTS, 4), [(EXPERTS, 4), (CONDENSING, 1), (CONDENSING, 2)]),
        ((CONDENSING, 2), [(CONDENSING, 2)]),
    ],
    ids=["first epoch", "second expert", "condensing"],
)
def test_a_killed_run_goes_on_where_it_was_to_the_same_bits(tmp_path, monkeypatch, killed_at, left):
    often = functools.partial(FileCheckpoints, interval=0.0)
    monkeypatch.setattr(checkpoint, "FileCheckpoints", often)
    distill = {"label_rate": 2.0, "averaging": 0.9}
    whole, broken = (hospital_of(tmp_path / name, **distill) for name in ("whole", "broken"))
    whole.contribute()
    steps = []

    def killed(step) -> None:
        if (step.stage, step.done) == killed_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken.contribute(watch=killed)
    broken.contribute(watch=lambda step: steps.append((step.stage, step.done)))

    assert [step for step in steps if step[0] in {EXPERTS, CONDENSING}] == left
    for name, array in whole.state.synthetic().items():
        assert (broken.state.synthetic()[name] == array).all()


def test_an_expert_without_a_recorded_course_comes_back_without_one(tmp_path):
    weights = an_expert().weights
    kept(tmp_path).keep(0, Expert(weights, Course.unrecorded()))

    files = ExpertFiles(tmp_path, MINE)

    assert torch.equal(files.weights(0, 2), weights[2])
    assert not files.course(0).recorded
