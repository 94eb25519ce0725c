"""A run under differential privacy that is killed after its noise was drawn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hospital_kit import Hospital, films, tiny_study

from fedcondense.config.loading import parse_settings
from fedcondense.config.study import Study
from fedcondense.privacy.chain import Row, State
from fedcondense.privacy.ledger import PrivacyLedger

pytestmark = pytest.mark.slow

# condenses a site's images, tells what its noise came to, and then waits if it is told to
PROGRAM = """
import hashlib, json, sys, time
from hospital_kit import audits_that_pass
from fedcondense.config.loading import parse_settings
from fedcondense.config.site import SiteConfig
from fedcondense.config.study import Study
from fedcondense.site import contribute, sources

def tell(numbers):
    print("noised", hashlib.sha256(numbers.numpy().tobytes()).hexdigest(), flush=True)
    if sys.argv[1] == "wait":
        time.sleep(600)

release, keep = sources.release_class_embeddings, sources._Shelf.keep

def release_and_tell(*args, **options):
    embeddings = release(*args, **options)
    tell(embeddings.sums)
    return embeddings

def keep_and_tell(self, number, weights):
    keep(self, number, weights)
    tell(weights)

sources.release_class_embeddings, sources._Shelf.keep = release_and_tell, keep_and_tell
contribute.run_audits = audits_that_pass
values = json.load(sys.stdin)
study = parse_settings(Study, values["study"], "study")
contribute.preview(parse_settings(SiteConfig, values["site"], "site"), study, round=1)
"""
METHODS: dict[str, dict[str, Any]] = {
    "dp-embed": {"method": "dm", "iterations": 2},
    "dp-sgd": {
        "method": "pruned-mtt",
        "iterations": 2,
        "student_steps": 2,
        "synthetic_batch": 3,
        "expert_epochs": 1,
        "max_start": 2,
        "experts": {"count": 1, "epochs": 2, "batch": 120, "rate": 0.1},
    },
}
EACH = {"dp-embed": 12, "dp-sgd": 400}  # class counts are noised with a deviation of 40


def hospital_for(folder: Path, mode: str) -> Hospital:
    values = tiny_study().model_dump(mode="json", exclude_none=True)
    privacy = {"mode": mode, "epsilon": 60.0}
    study = parse_settings(Study, values | {"privacy": privacy, "distill": METHODS[mode]}, "tiny")
    settings = {"ledger": {"epsilon": 100.0, "delta": 5e-4}, "declared": {"images": 3 * EACH[mode]}}
    return Hospital(folder, study, films((EACH[mode],) * 3), least=2, settings=settings)


def begin(hospital: Hospital, then: str) -> subprocess.Popen[str]:
    paths = (str(Path(__file__).parents[1] / "kits"), str(Path(__file__).parents[2]))
    run = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, then],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )
    assert run.stdin is not None
    site, study = (
        of.model_dump(mode="json", exclude_none=True) for of in (hospital.site, hospital.study)
    )
    run.stdin.write(json.dumps({"site": site, "study": study}))
    run.stdin.close()
    return run


def noise_of(run: subprocess.Popen[str]) -> str:
    assert run.stdout is not None
    return run.stdout.readline()


def rows_of(hospital: Hospital) -> tuple[Row, ...]:
    site = hospital.site
    return PrivacyLedger.open(site.ledger_folder, site.population, site.ledger).rows()


@pytest.mark.parametrize("mode", METHODS)
def test_what_was_noised_is_lost_with_the_process_and_paid_for_again(tmp_path, mode):
    hospital = hospital_for(tmp_path, mode)
    with begin(hospital, "wait") as killed:
        lost = noise_of(killed)
        killed.kill()
    charged = rows_of(hospital)
    kept = [path.name for path in tmp_path.rglob("*.safetensors")]

    with begin(hospital, "go on") as again:
        noise = noise_of(again)
    assert again.returncode == 0

    assert lost.startswith("noised ")
    assert noise.startswith("noised ")
    assert noise != lost
    assert kept == []
    assert {row.state for row in charged} == {State.CHARGED}
    after = rows_of(hospital)
    assert after[: len(charged)] == charged
    paid_again = after[len(charged) : 2 * len(charged)]
    assert [(r.mechanism, r.sigma) for r in paid_again] == [(r.mechanism, r.sigma) for r in charged]
    assert [r.settles for r in after if r.state is State.DONE] == [
        tuple(row.seq for row in paid_again)
    ]
