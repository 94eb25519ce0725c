"""`status`: who lives, who serves, and what the site keeps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.supercore.grpc_health import run_health_server_grpc_no_tls
from joined_kit import Hospital, hospital

from fedcondense.config.site import load_site
from fedcondense.flower.processes import free_port
from fedcondense.flower.site_status import UNREADABLE, RoundKept, SiteStatus, site_status
from fedcondense.progress import Step
from fedcondense.site.join_status import JoinStatus, only_one, write_status
from fedcondense.site.journal import Journal
from fedcondense.site.last_request import LastRequest, note_request


@pytest.fixture
def lakeside(tmp_path: Path) -> Hospital:
    return hospital(tmp_path / "lakeside")


@pytest.fixture
def port() -> Iterator[int]:
    """That of a health service that answers SERVING."""
    port = free_port()
    server = run_health_server_grpc_no_tls(f"127.0.0.1:{port}")
    yield port
    server.stop(0)


def status(site: Hospital) -> SiteStatus:
    return site_status(load_site(site.settings))


def test_a_site_that_never_joined_takes_no_part(lakeside: Hospital) -> None:
    found = status(lakeside)

    assert (found.healthy, found.supervised, found.serving) == (False, False, False)
    assert (found.join, found.last, found.rounds) == (None, None, ())


def test_a_site_whose_supervisor_lives_and_whose_supernode_serves_takes_part(
    lakeside: Hospital, port: int
) -> None:
    running = JoinStatus(os.getpid(), "0.1.0", 5).starting(port).running()
    write_status(lakeside.state, running)
    last = LastRequest(7, "query.hello", 1, "ready", "", "0.1.0")
    note_request(lakeside.state, last)

    with only_one(lakeside.state):
        found = status(lakeside)

    assert found.healthy
    assert (found.join, found.last) == (running, last)
    assert not status(lakeside).healthy  # the supervisor has gone, whatever its file says


def test_a_supernode_that_does_not_answer_serves_nothing(lakeside: Hospital) -> None:
    write_status(lakeside.state, JoinStatus(1, "0.1.0", 5).starting(free_port()).running())

    with only_one(lakeside.state):
        found = status(lakeside)

    assert (found.supervised, found.serving) == (True, False)


def test_a_foreign_service_on_an_old_port_is_not_asked(lakeside: Hospital, port: int) -> None:
    write_status(lakeside.state, JoinStatus(1, "0.1.0", 5).starting(port).running().waiting("x"))

    with only_one(lakeside.state):
        assert not status(lakeside).serving


def test_rounds_are_listed_as_condensed_and_sealed_or_how_far_they_are(lakeside: Hospital) -> None:
    folder = lakeside.state / "runs" / lakeside.study.digest
    (folder / "round-001" / "sealed").mkdir(parents=True)
    (folder / "round-001" / "figures.json").touch()
    (folder / "round-001" / "sealed" / "ab.sealed").touch()
    (folder / "round-010").mkdir()
    Journal(folder / "round-011" / "log.jsonl")(Step("condensing", 140, 300))

    assert status(lakeside).rounds == (
        RoundKept(lakeside.study.digest, "1", condensed=True, sealed=1),
        RoundKept(lakeside.study.digest, "10", condensed=False, sealed=0),
        RoundKept(lakeside.study.digest, "11", False, 0, Step("condensing", 140, 300)),
    )


def test_a_key_that_cannot_be_read_is_said_and_stops_nothing(lakeside: Hospital) -> None:
    (lakeside.state / "keys" / "node.key").chmod(0o644)

    found = status(lakeside)

    assert found.node == UNREADABLE
    assert len(found.signing.split()) == 16
