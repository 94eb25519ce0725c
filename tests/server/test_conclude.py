from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from wire_kit import Wire, learning_study, payload_of, small_study

from fedcondense.data.dataset import LabeledImages
from fedcondense.errors import QuorumMissed
from fedcondense.exchange.round_result import Expected, read_given
from fedcondense.exchange.run_description import sign_description
from fedcondense.exchange.sealing import Opened
from fedcondense.files.storage import read_json
from fedcondense.learning.evaluation import evaluate
from fedcondense.learning.partition import expand_partitions
from fedcondense.server.aggregate import aggregate, read_global_set
from fedcondense.server.classifier import load_classifier
from fedcondense.server.conclude import conclude_round, views_of
from fedcondense.server.intake import enroll, receive
from fedcondense.server.run_directory import RunDirectory

SHORT = {"networks": 2, "steps": 4, "batch": 8, "resamples": 100}
STUDY = small_study(network={"width": 4, "depth": 2}, evaluation=SHORT)


@pytest.fixture(scope="module")
def wire() -> Wire:
    return Wire(study=STUDY)


@pytest.fixture
def run(wire, tmp_path) -> RunDirectory:
    return begin(wire, tmp_path)


def begin(wire, tmp_path) -> RunDirectory:
    signed = sign_description(wire.description, wire.server)
    run = RunDirectory.create(tmp_path / "run", wire.study, signed)
    for site, key in wire.keys.items():
        enroll(run, site, key.public)
    return run


def held_images(n: int = 12) -> dict[str, LabeledImages]:
    pixels = torch.randint(0, 256, (n, 1, 16, 16), generator=torch.Generator().manual_seed(0))
    groups = tuple(f"p{i}" for i in range(n))
    images = LabeledImages(pixels.byte(), torch.arange(n) % 2, STUDY.classes, groups, None, None)
    return {"test": images}


def fill(run, wire) -> None:
    for seed, site in enumerate(wire.keys):
        receive(run, wire.sealed(site, seed=seed), 1)


def test_a_concluded_round_leaves_set_classifier_scores_and_last_of_all_done(run, wire):
    fill(run, wire)

    concluded = conclude_round(run, 1, wire.opening, held_images(), signer=wire.server)

    assert read_global_set(run.global_set(1)).sha256 == concluded.global_set.sha256
    assert concluded.outcome.probabilities["test"].shape == (2, 12, 2)
    estimate = read_json(run.scores(1))["test"]["balanced_accuracy"]
    assert estimate["low"] <= estimate["mean"] <= estimate["high"]
    assert read_json(run.done(1)) == {"global_set": concluded.global_set.sha256, "round": 1}
    assert not run.opened_folder(1).exists()


def test_the_digest_of_the_set_and_its_scores_are_signed_for_the_sites(run, wire):
    fill(run, wire)

    concluded = conclude_round(run, 1, wire.opening, held_images(), signer=wire.server)

    expected = Expected(STUDY, wire.server.fingerprint, 1, wire.description.run)
    data = concluded.global_set.shared.data
    given = read_given(run.result(1).read_bytes(), data, expected)
    assert given.result.set_sha256 == concluded.global_set.sha256
    mean = read_json(run.scores(1))["test"]["balanced_accuracy"]["mean"]
    assert float(given.result.scores["balanced_accuracy"]["mean"]) == pytest.approx(mean, abs=1e-4)


def test_below_the_quorum_nothing_is_written(run, wire):
    receive(run, wire.sealed("site-1"), 1)

    with pytest.raises(QuorumMissed, match="1 stored contributions, the study's quorum is 2"):
        conclude_round(run, 1, wire.opening, held_images(), signer=wire.server)

    assert not run.done(1).exists()
    assert not run.global_set(1).exists()
    assert not run.classifier(1).exists()


def test_networks_train_on_the_exported_bytes_expanded(run, wire):
    fill(run, wire)
    union = conclude_round(run, 1, wire.opening, held_images(), signer=wire.server).global_set

    views = views_of(union, STUDY)

    stored = -4 + union.images.astype(np.float64) * 8 / 255
    expected = expand_partitions(torch.from_numpy(stored.astype(np.float32)), 2)
    np.testing.assert_allclose(views.images, expected, atol=1e-6)
    assert views.labels.tolist() == union.labels.tolist() * 4


def test_every_part_of_an_image_is_trained_on_with_the_images_soft_label():
    study = learning_study(distill={"partition": 2})
    sites = [Opened(f"site-{n}", payload_of(study, seed=n), {}) for n in (1, 2)]
    union = aggregate(sites, study)

    views = views_of(union, study)

    assert views.soft.dtype == np.float32
    assert views.soft.tolist() == union.soft.tolist() * 4
    assert views.labels.tolist() == union.labels.tolist() * 4


def test_soft_labels_and_step_size_of_the_union_are_what_networks_train_with(wire, tmp_path):
    study = learning_study(network={"width": 4, "depth": 2}, evaluation=SHORT)
    learning = Wire(study, opening=wire.opening, server=wire.server, keys=wire.keys)
    run, asked = begin(learning, tmp_path), []
    fill(run, learning)

    concluded = conclude_round(
        run,
        1,
        learning.opening,
        held_images(),
        signer=wire.server,
        evaluation=lambda *of: asked.append(of) or evaluate(*of),
    )

    ((bench, (candidate,)),) = asked
    rates = [payload_of(study, seed=n).student_rate for n in (0, 1)]
    assert candidate.rate == pytest.approx(np.prod([float(rate) for rate in rates]) ** 0.5, 1e-5)
    assert bench.pictures["global"].soft.tolist() == concluded.global_set.soft.tolist()
    assert read_global_set(run.global_set(1)).student_rate == candidate.rate


def test_two_conclusions_of_one_round_are_equal(run, wire):
    fill(run, wire)

    one = conclude_round(run, 1, wire.opening, held_images(), signer=wire.server)
    other = conclude_round(run, 1, wire.opening, held_images(), signer=wire.server)

    assert one.global_set.sha256 == other.global_set.sha256
    ours, theirs = one.outcome.probabilities["test"], other.outcome.probabilities["test"]
    assert np.array_equal(ours, theirs)


def test_the_classifier_is_read_back_and_says_what_it_said(run, wire, tmp_path):
    fill(run, wire)
    held = held_images()
    outcome = conclude_round(run, 1, wire.opening, held, signer=wire.server).outcome
    film = tmp_path / "film.png"
    Image.fromarray(held["test"].images[3, 0].numpy()).save(film)

    found = load_classifier(run.classifier(1)).probabilities(film)

    expected = dict(zip(STUDY.classes, outcome.probabilities["test"][0, 3], strict=True))
    assert found == pytest.approx(expected, abs=1e-5)


def test_the_model_card_says_what_it_is_and_what_it_is_not_for(run, wire):
    fill(run, wire)

    conclude_round(run, 1, wire.opening, held_images(), signer=wire.server)

    card = (run.classifier(1) / "README.md").read_text()
    assert "**Not for clinical use.**" in card
    assert "normal, pneumonia" in card
    assert STUDY.digest in card


def test_the_six_lines_of_the_tutorial_score_a_folder(run, wire, tmp_path, monkeypatch, capsys):
    fill(run, wire)
    conclude_round(run, 1, wire.opening, held_images(), signer=wire.server)
    place = tmp_path / "runs/demo/seed-0/server/round-001"
    place.mkdir(parents=True)
    (place / "classifier").symlink_to(run.classifier(1))
    (tmp_path / "films").mkdir()
    Image.fromarray(np.full((30, 40), 90, np.uint8)).save(tmp_path / "films" / "a.png")
    monkeypatch.chdir(tmp_path)
    snippet = Path(__file__).parents[2] / "docs/snippets/score_a_folder.py"

    runpy.run_path(str(snippet))

    assert capsys.readouterr().out.startswith("a.png {'normal': ")
    assert snippet.read_text() in (snippet.parents[1] / "tutorial-simulation.md").read_text()
