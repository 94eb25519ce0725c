"""A sweep that takes no time: a stand-in for a simulation, whose scores are invented."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fedcondense.config.loading import parse_settings
from fedcondense.config.scenario import Scenario
from fedcondense.data.dataset import LabeledImages
from fedcondense.errors import FedcondenseError
from fedcondense.files.environment import this_environment
from fedcondense.files.storage import write_json
from fedcondense.learning.scores import TestSet
from fedcondense.progress import Step, Watch
from fedcondense.research.gate_schema import Gate
from fedcondense.research.report_assembly import Circumstances, Pooled, assemble, study_facts
from fedcondense.research.report_schema import (
    Release,
    Repetition,
    Seconds,
    SiteFigures,
    StudyReport,
)
from fedcondense.research.resamples import keep_resamples
from fedcondense.research.run_root import RunRoot
from fedcondense.research.scoring import Scored, pool_repetitions, score
from fedcondense.server.report_figures import GlobalSetFigures, ScoredImages

CLASSES = ("COVID", "Normal", "Pneumonia")
TESTED = 60
RESAMPLES = 100


def sweep_scenario(sweep: dict[str, Any], **changes: Any) -> Scenario:
    values = {
        "name": "toy",
        "distill": {"method": "idm"},
        "images": {"kind": "phantoms"},
        "release": "study-only",
        "sweep": sweep,
    }
    return parse_settings(Scenario, values | changes, "toy.toml")


def held_images() -> LabeledImages:
    labels = torch.arange(TESTED) % len(CLASSES)
    pixels = torch.zeros((TESTED, 1, 16, 16), dtype=torch.uint8)
    groups = tuple(f"patient-{i}" for i in range(TESTED))
    return LabeledImages(pixels, labels, CLASSES, groups, None, ("test",) * TESTED)


def invented_scores(scenario: Scenario, seed: int) -> Scored:
    """Scores of a plausible size, the same for the same scenario and seed."""
    held = held_images()
    told = f"{scenario.distill.method} {scenario.images_per_class} {seed}"
    rng = np.random.default_rng(zlib.crc32(told.encode()))
    levels = {"ceiling": 0.9, "random_real/0": 0.5, "random_real_expanded/0": 0.6}
    levels |= {"global": 0.6 + 0.02 * min(10, scenario.images_per_class)}
    levels |= {f"site_alone/site-{i}": 0.6 for i in (1, 2)}
    levels |= {f"site_joined/site-{i}": 0.7 for i in (1, 2)}
    predictions = {name: _predictions(held.labels.numpy(), s, rng) for name, s in levels.items()}
    counted = {name.removesuffix("/0"): 6 for name in levels}
    test = TestSet(held.labels.numpy(), held.groups, RESAMPLES, 0)
    return score(predictions, test, classes=CLASSES, stored=counted, views=counted)


def _predictions(labels: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Two networks that find about `share` of the labels."""
    hit = rng.random((2, len(labels))) < share
    told = np.where(hit, labels, (labels + 1) % len(CLASSES))
    return (0.7 * np.eye(len(CLASSES))[told] + 0.1).astype(np.float32)


def invented_report(scenario: Scenario, by_seed: dict[int, Scored]) -> StudyReport:
    """A study report of invented scores; a site sends 1,000 bytes for each image per class."""
    repetitions = [
        Repetition(
            seed=seed,
            study_digest="0" * 64,
            sites=tuple(_site(f"site-{n}", i, scenario) for n in (1, 2)),
            seconds=Seconds(start_up=1, condense=2, federation=3, evaluation=4, total=10),
            global_set=GlobalSetFigures(sha256="1" * 64, images=6, classes=CLASSES),
            scores=scored.scores(),
            gains=scored.gains(),
        )
        for i, (seed, scored) in enumerate(by_seed.items())
    ]
    pooled = pool_repetitions(by_seed)
    counts = dict(zip(CLASSES, held_images().counts().tolist(), strict=True))
    circumstances = Circumstances(
        study=study_facts(scenario, scenario.study(CLASSES, 4, scenario.seeds[0])),
        environment=this_environment("cpu", threads=1),
        release=Release(mode=scenario.release, purpose="simulation"),
        test=ScoredImages(name="test", images=TESTED, groups=TESTED, class_counts=counts),
    )
    return assemble(circumstances, repetitions, Pooled(pooled.scores(), pooled.gains()))


def _site(name: str, repetition: int, scenario: Scenario) -> SiteFigures:
    return SiteFigures(
        name=name,
        repetition=repetition,
        images=30,
        groups=30,
        class_counts=dict.fromkeys(CLASSES, 10),
        synthetic_images=3 * scenario.images_per_class,
        sealed_bytes=1_000 * scenario.images_per_class,
        real_bytes=30_720,
        seconds=2.5,
        peak_megabytes=100,
        gate=Gate(
            purpose="simulation",
            problems=("real-start",) if scenario.distill.start == "real" else (),
            audits={"provenance": "passed", "memorisation": "refused", "membership": "not-run"},
            page=f"seed-{repetition}/sites/{name}/preview.html",
        ),
        payload_sha256="2" * 64,
        signing_key="somebody's",
    )


@dataclass
class StandIn:
    """Plays a scenario in no time; `fails` says by images per class with which error."""

    fails: dict[int, BaseException] = field(default_factory=dict)
    played: list[Scenario] = field(default_factory=list)

    def __call__(self, root: RunRoot, scenario: Scenario, watch: Watch) -> None:
        self.played.append(scenario)
        watch(Step("condensing", 1, 1))
        if error := self.fails.get(scenario.images_per_class):
            raise error
        by_seed = {seed: invented_scores(scenario, seed) for seed in scenario.seeds}
        report = invented_report(scenario, by_seed)
        keep_resamples(root.path, by_seed, held_images())
        write_json(root.path / "report.json", report.to_json())
        root.finish()


def error_of(kind: type[FedcondenseError]) -> FedcondenseError:
    return kind("what is wrong", hint="what to do")
