from __future__ import annotations

import threading

import pytest

from fedcondense.config.loading import parse_settings
from fedcondense.config.scenario import Scenario
from fedcondense.errors import RunDirectoryError
from fedcondense.research.run_root import RunRoot


def scenario(**changes) -> Scenario:
    values = {"name": "toy", "distill": {"method": "idm"}, "images": {"kind": "phantoms"}}
    return parse_settings(Scenario, values | changes, "toy.toml")


def claim(path, which=None):
    with RunRoot(path).claim(which or scenario()):
        pass


def test_a_new_directory_is_taken_with_a_copy_of_the_scenario(tmp_path):
    claim(tmp_path / "runs" / "new")

    assert 'name = "toy"' in (tmp_path / "runs/new/scenario.toml").read_text()


def test_the_same_scenario_may_come_again(tmp_path):
    claim(tmp_path / "run")
    (tmp_path / "run" / "seed-0").mkdir()

    claim(tmp_path / "run")

    assert not RunRoot(tmp_path / "run").is_done()


def test_another_scenario_is_refused(tmp_path):
    claim(tmp_path / "run")

    with pytest.raises(RunDirectoryError, match="run: holds the run of another scenario") as caught:
        claim(tmp_path / "run", scenario(seeds=[1]))

    assert caught.value.hint == "name another directory with --out, or delete this one"


def test_foreign_files_are_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.doc").write_text("years of work")

    with pytest.raises(RunDirectoryError, match="holds files that no simulation wrote"):
        claim(tmp_path)

    assert [p.name for p in tmp_path.iterdir()] == ["thesis.doc"]


def test_a_damaged_scenario_file_counts_as_another(tmp_path):
    claim(tmp_path / "run")
    (tmp_path / "run" / "scenario.toml").write_bytes(b"\xff\xfe")

    with pytest.raises(RunDirectoryError, match="another scenario"):
        claim(tmp_path / "run")


def test_a_file_in_the_way_is_one_line(tmp_path):
    (tmp_path / "run").write_text("not a directory")

    with pytest.raises(RunDirectoryError, match="run: file exists"):
        claim(tmp_path / "run")


def test_two_processes_never_share_a_directory(tmp_path):
    root = RunRoot(tmp_path / "run")

    with (
        root.claim(scenario()),
        pytest.raises(RunDirectoryError, match="another process works in this directory"),
        root.claim(scenario()),
    ):
        raise AssertionError("both claimed it")


def test_who_comes_while_another_takes_the_directory_waits_and_finds_its_own_scenario(
    tmp_path, monkeypatch
):
    """A second process once took the half-written scenario of the first for a foreign file."""
    half_written, waiting = threading.Event(), []

    def slowly(path, data):
        (path.parent / ".scenario.toml.tmp").touch()
        half_written.set()
        waiting[0].join(0.3)
        (path.parent / ".scenario.toml.tmp").rename(path)
        path.write_bytes(data)

    monkeypatch.setattr("fedcondense.research.run_root.write_atomically", slowly)
    found = []

    def second():
        half_written.wait(10)
        with RunRoot(tmp_path / "run").claim_if_free(scenario()) as mine:
            found.append(mine)

    waiting.append(threading.Thread(target=second))
    waiting[0].start()
    claim(tmp_path / "run")
    waiting[0].join(10)

    assert found, "the second one was refused"


def test_done_is_what_was_marked(tmp_path):
    root = RunRoot(tmp_path / "run")
    with root.claim(scenario()):
        root.finish()

    assert root.is_done()


def test_a_busy_directory_may_be_passed_over(tmp_path):
    root = RunRoot(tmp_path / "run")

    with root.claim_if_free(scenario()) as mine, root.claim_if_free(scenario()) as again:
        assert (mine, again) == (True, False)
    with root.claim_if_free(scenario()) as later:
        assert later


def test_a_run_of_its_own_shares_nothing(tmp_path):
    root = RunRoot(tmp_path / "run")

    assert root.evaluations == tmp_path / "run" / "evaluations"
    assert root.experts(0) is None
