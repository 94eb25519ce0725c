"""The doctor at the site: every line says what is in order, or what is not and what to do."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
from joined_kit import Hospital, hospital
from project_kit import extra_of

from fedcondense.config.privacy import DpEmbed
from fedcondense.config.site import SiteConfig
from fedcondense.config.study import Study
from fedcondense.errors import DataError
from fedcondense.site import doctor
from fedcondense.site.doctor import (
    Finding,
    Verdict,
    check_site,
    others_here,
)

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def lakeside(tmp_path: Path) -> Hospital:
    return hospital(tmp_path / "lakeside")


def lines(lakeside: Hospital) -> dict[str, Finding]:
    return {finding.what: finding for finding in check_site(lakeside.settings)}


def test_a_site_in_order_has_a_line_for_everything(
    lakeside: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "available_memory", lambda: 8e9)
    monkeypatch.setattr(doctor, "others_here", lambda: 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1e12, 0, 1e12))

    found = lines(lakeside)

    assert list(found) == [
        "settings",
        "study",
        "run-signing key",
        "signing key",
        "node key",
        "state",
        "disk",
        "memory",
        "device",
        "machine",
    ]
    assert {finding.verdict for finding in found.values()} == {Verdict.OK}
    assert lakeside.study.digest in found["study"].text
    assert lakeside.operator.fingerprint in found["run-signing key"].text


def test_wrong_settings_end_it_with_their_own_error(lakeside: Hospital) -> None:
    lakeside.change(seed=-1)

    (finding,) = check_site(lakeside.settings)

    assert (finding.what, finding.verdict) == ("settings", Verdict.FAILED)
    assert "seed" in finding.text


def test_one_fault_hides_no_other(lakeside: Hospital) -> None:
    lakeside.change(study_digest="ab" * 32)
    (lakeside.state / "keys" / "signing.key").chmod(0o644)
    (lakeside.state / "keys" / "node.key").unlink()
    lakeside.state.chmod(0o755)

    found = lines(lakeside)

    wrong = {what for what, finding in found.items() if finding.verdict is Verdict.FAILED}
    assert {"study", "signing key", "node key", "state"} <= wrong
    assert all(found[what].hint for what in wrong)


def test_the_images_are_looked_at_only_once_the_study_is_known(lakeside: Hospital) -> None:
    def survey(site: SiteConfig, study: Study) -> Iterator[Finding]:
        yield Finding("images", Verdict.OK, f"{len(study.classes)} classes")
        raise DataError("the folder is empty", hint="look there")

    *_, found, failure = check_site(lakeside.settings, surveys={"images": survey})
    lakeside.change(study_digest="ab" * 32)

    assert found.text == "2 classes"
    assert failure == Finding(
        "images", Verdict.FAILED, "the folder is empty", "look there", "FC202"
    )
    assert "images" not in lines(lakeside)


@pytest.mark.parametrize("found", [None, "opacus"])
def test_a_study_with_differential_privacy_needs_opacus(
    lakeside: Hospital, monkeypatch: pytest.MonkeyPatch, found: str | None
) -> None:
    assert "software" not in lines(lakeside)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)

    privacy = DpEmbed(mode="dp-embed", epsilon=8.0, delta=1e-5)
    study = lakeside.study.model_copy(update={"privacy": privacy})
    monkeypatch.setattr(doctor, "releasable_study", lambda site: study)

    software = lines(lakeside)["software"]
    assert software.verdict is (Verdict.OK if found else Verdict.FAILED)
    assert software.hint == ("" if found else f"pip install '{extra_of('dp')}'")


def test_a_full_disk_and_a_small_memory_are_failures(
    lakeside: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "available_memory", lambda: 1e9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1e12, 1e12, 1e9))

    found = lines(lakeside)

    assert (found["disk"].verdict, found["memory"].verdict) == (Verdict.FAILED, Verdict.FAILED)
    assert found["disk"].text == "1.0 GB free for the state directory"


def test_a_gpu_that_is_not_there_is_a_failure_and_auto_takes_the_cpu(lakeside: Hospital) -> None:
    lakeside.change(device="cuda:97")
    assert lines(lakeside)["device"].verdict is Verdict.FAILED

    lakeside.change(device="cpu", threads=2)
    assert lines(lakeside)["device"].text == "CPU, 2 threads"


def test_other_people_on_the_machine_are_counted_services_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners = {"1": 0, "7": 33, "20": 1000, "21": 1000, "30": 1001, "40": 1002}
    for process in owners:
        (tmp_path / process).mkdir()
    (tmp_path / "sys").mkdir()
    real = Path.stat
    stat_result = namedtuple("Stat", "st_uid")

    def stat(path: Path, **options: bool) -> object:
        return stat_result(owners[path.name]) if path.name in owners else real(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr("os.getuid", lambda: 1001)

    assert others_here(tmp_path) == 2


def test_a_site_on_the_cpu_is_examined_without_torch(lakeside: Hospital) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from fedcondense.site.doctor import check_site\n"
        "assert list(check_site(Path(sys.argv[1])))\n"
        "sys.exit('torch' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code, str(lakeside.settings)], check=False)

    assert done.returncode == 0
