from __future__ import annotations

import json

import pytest

from fedcondense.progress import Step
from fedcondense.site.journal import Journal, last_step, peak_megabytes, read_journal

STEPS = [Step("reading images", 5, 9), Step("condensing", 1, 300, {"matching": 0.25, "ce": 2.0})]


def test_every_step_is_read_as_it_was_reported(tmp_path):
    path = tmp_path / "site" / "log.jsonl"
    journal = Journal(path)

    for step in STEPS:
        journal(step)

    assert read_journal(path) == STEPS


def test_a_line_holds_seconds_and_memory_beside_the_figures(tmp_path):
    path = tmp_path / "log.jsonl"

    Journal(path)(STEPS[1])
    line = json.loads(path.read_text())

    assert line.keys() == {"stage", "done", "total", "seconds", "megabytes", "matching", "ce"}
    assert 0 <= line["seconds"] < 60
    assert 1 < line["megabytes"] <= peak_megabytes() + 0.1


def test_a_further_journal_goes_on_in_the_same_file(tmp_path):
    path = tmp_path / "log.jsonl"

    for step in STEPS:
        Journal(path)(step)

    assert read_journal(path) == STEPS


def test_a_half_written_last_line_is_passed_over(tmp_path):
    path = tmp_path / "log.jsonl"
    for step in STEPS:
        Journal(path)(step)
    with path.open("a") as file:
        file.write('{"stage": "condensing", "do')

    assert read_journal(path) == STEPS
    assert last_step(path) == STEPS[-1]


@pytest.mark.parametrize("before", ["", '{"stage": "condensing", "done": 1, "total": 2}\n'])
def test_a_half_written_line_does_not_spoil_those_of_the_process_that_goes_on(tmp_path, before):
    path = tmp_path / "log.jsonl"
    path.write_text(before + '{"stage": "condensing", "do')

    Journal(path)(Step("condensing", 2, 2))

    assert [step.done for step in read_journal(path)] == ([1, 2] if before else [2])


def test_there_is_no_step_before_the_first(tmp_path):
    assert read_journal(tmp_path / "none.jsonl") == []
    assert last_step(tmp_path / "none.jsonl") is None


@pytest.mark.parametrize("content", ["", '{"stage": "condens'])
def test_a_journal_without_a_whole_line_has_no_step(tmp_path, content):
    path = tmp_path / "log.jsonl"
    path.write_text(content)

    assert read_journal(path) == []
    assert last_step(path) is None


def test_the_first_step_is_also_the_last_one(tmp_path):
    path = tmp_path / "log.jsonl"

    Journal(path)(STEPS[0])

    assert last_step(path) == STEPS[0]


def test_the_last_step_is_found_without_reading_the_rest(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\xff no line of a journal\n" * 10_000)

    for done in range(100):
        Journal(path)(Step("condensing", done, 100))

    assert last_step(path) == Step("condensing", 99, 100)


def test_a_step_that_is_longer_than_what_is_read_is_no_step(tmp_path):
    path = tmp_path / "log.jsonl"

    Journal(path)(Step("condensing", 1, 2, {f"figure {n}": 1.0 for n in range(400)}))

    assert last_step(path) is None
    assert len(read_journal(path)) == 1
