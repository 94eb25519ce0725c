"""A site's shell inside Flower: who may ask, what is answered, and what is never said."""

from __future__ import annotations

import ast
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import federation_kit
import pytest
import torch
from federation_kit import PATIENT, Repetition, make_repetition
from flwr.app import Context, Message, RecordDict
from wire_kit import payload_of

from fedcondense.config.scenario import ReleaseMode
from fedcondense.errors import DivergedError, InternalError, ReleaseRefused
from fedcondense.exchange.keys import SigningKey, fingerprint_digits
from fedcondense.exchange.round_result import SCORES, result_of, sign_result
from fedcondense.exchange.run_description import Request, sign_description
from fedcondense.exchange.sealing import Opened
from fedcondense.flower import client_app
from fedcondense.flower.messages import (
    CONTRIBUTE,
    HELLO,
    RESULT,
    Ask,
    Outcome,
    Reply,
    read_reply,
    to_request,
)
from fedcondense.flower.simulation import SIMULATION
from fedcondense.server.aggregate import aggregate
from fedcondense.server.intake import receive
from fedcondense.site.journal import read_journal
from fedcondense.site.state import RoundState

Contribute = Callable[..., bytes]


@pytest.fixture
def at_site(
    monkeypatch: pytest.MonkeyPatch, repetition: Repetition
) -> Callable[[Contribute], None]:
    """Plays the repetition's sites in this process; the given function condenses."""
    monkeypatch.setenv(SIMULATION, str(repetition.path))

    def condense_with(function: Contribute) -> None:
        module = ModuleType("fedcondense.site.contribute")
        module.contribute = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)

    condense_with(federation_kit.stand_in)
    return condense_with


def context(partition: int = 0) -> Context:
    return Context(1, 7, {"partition-id": partition}, RecordDict(), {})


def send(kind: str, repetition: Repetition, signer: SigningKey | None = None) -> Message:
    signed = sign_description(repetition.description, signer or repetition.operator)
    return client_app.app(to_request(kind, 7, Ask(signed, 1), 60.0), context())


def raising(error: BaseException) -> Contribute:
    def contribute(*_: object, **__: object) -> bytes:
        raise error

    return contribute


def key_of(repetition: Repetition, site: str = "site-1") -> str:
    return fingerprint_digits(repetition.keys[site].fingerprint)


@pytest.mark.usefixtures("at_site")
def test_a_site_that_could_contribute_says_ready_and_which_key_it_signs_with(
    repetition: Repetition,
) -> None:
    reply = read_reply(send(HELLO, repetition))

    assert reply == Reply(Outcome.READY, signing_key=key_of(repetition))
    assert repetition.starts("site-1") == []


@pytest.mark.usefixtures("at_site")
def test_a_contribution_is_accepted_by_the_servers_intake(repetition: Repetition) -> None:
    reply = read_reply(send(CONTRIBUTE, repetition))

    receipt = receive(repetition.run, reply.sealed, 1, sender="site-1")
    assert reply.outcome is Outcome.SEALED
    assert receipt.site == "site-1"


def given_of(repetition: Repetition, round: int = 1) -> Ask:
    """What the server sends of a round: a signed result and the bytes of its set."""
    study = repetition.study
    shared = aggregate([Opened("site-1", payload_of(study), {})], study).shared
    scores = {name: dict.fromkeys(("mean", "low", "high"), 0.5) for name in SCORES}
    run = repetition.description.run
    result = result_of(shared, study, run=run, round=round, scores=scores)
    signed = sign_description(repetition.description, repetition.operator)
    return Ask(signed, round, result=sign_result(result, repetition.operator), data=shared.data)


def send_ask(kind: str, ask: Ask) -> Reply:
    return read_reply(client_app.app(to_request(kind, 7, ask, 60.0), context()))


@pytest.fixture
def two_rounds(tmp_path: Path) -> Repetition:
    return make_repetition(tmp_path / "two", sites=1, rounds=2)


@pytest.fixture
def at_two(monkeypatch: pytest.MonkeyPatch, two_rounds: Repetition) -> list[Request]:
    """The requests that reach the images of the site of two rounds."""
    seen: list[Request] = []

    def contribute(site: object, study: object, request: Request, **_: object) -> bytes:
        seen.append(request)
        return b"sealed"

    monkeypatch.setenv(SIMULATION, str(two_rounds.path))
    module = ModuleType("fedcondense.site.contribute")
    module.contribute = contribute  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return seen


def test_a_second_round_is_given_the_verified_global_set_of_the_first(
    two_rounds: Repetition, at_two: list[Request]
) -> None:
    given = given_of(two_rounds)

    reply = send_ask(CONTRIBUTE, replace(given, round=2))

    assert reply.outcome is Outcome.SEALED
    [request] = at_two
    assert request.given is not None
    assert (request.round, request.given.shared.data) == (2, given.data)
    kept = two_rounds.site("site-1") / f"runs/{two_rounds.study.digest}/round-001/global"
    assert sorted(path.name for path in kept.iterdir()) == ["result.json", "set.safetensors"]


@pytest.mark.parametrize("what", ["nothing", "changed", "of another round", "of another key"])
def test_a_second_round_with_anything_else_is_refused_before_an_image_is_read(
    two_rounds: Repetition, at_two: list[Request], what: str
) -> None:
    given = replace(given_of(two_rounds), round=2)
    stranger = replace(two_rounds, operator=SigningKey.generate())
    ask = {
        "nothing": Ask(given.description, 2),
        "changed": replace(given, data=bytes([given.data[0] ^ 1]) + given.data[1:]),
        "of another round": replace(given_of(two_rounds, 2), round=2),
        "of another key": replace(given, result=given_of(stranger).result),
    }[what]

    assert send_ask(CONTRIBUTE, ask).code == "FC404"
    assert at_two == []


def test_a_round_beyond_the_study_is_refused(two_rounds: Repetition, at_two: list[Request]) -> None:
    given = replace(given_of(two_rounds, 2), round=3)

    assert send_ask(CONTRIBUTE, given).code == "FC409"
    assert at_two == []


def test_a_global_set_above_the_sites_limit_is_refused_unread(
    two_rounds: Repetition, at_two: list[Request]
) -> None:
    path = two_rounds.site("site-1") / "site.toml"
    path.write_text(path.read_text() + "[limits]\nmax_megabytes_in = 1\n")
    given = replace(given_of(two_rounds), round=2, data=bytes(1_100_000))

    assert send_ask(CONTRIBUTE, given).code == "FC409"
    assert at_two == []


def test_the_result_of_the_last_round_is_kept_and_acknowledged(
    two_rounds: Repetition, at_two: list[Request]
) -> None:
    reply = send_ask(RESULT, given_of(two_rounds, 2))

    assert reply == Reply(Outcome.READY, signing_key=key_of(two_rounds))
    kept = two_rounds.site("site-1") / f"runs/{two_rounds.study.digest}/round-002/global"
    assert (kept / "set.safetensors").exists()
    assert at_two == []


@pytest.mark.usefixtures("at_two")
def test_a_result_whose_set_was_too_large_to_be_sent_ends_the_study_too(
    two_rounds: Repetition,
) -> None:
    given = given_of(two_rounds, 2)
    send_ask(RESULT, given)

    reply = send_ask(RESULT, replace(given, data=b""))

    assert reply == Reply(Outcome.READY, signing_key=key_of(two_rounds))
    kept = two_rounds.site("site-1") / f"runs/{two_rounds.study.digest}/round-002/global"
    assert [path.name for path in kept.iterdir()] == ["result.json"]


@pytest.mark.usefixtures("at_two")
def test_a_result_without_its_set_is_verified_all_the_same(two_rounds: Repetition) -> None:
    stranger = given_of(replace(two_rounds, operator=SigningKey.generate()), 2)
    given = given_of(two_rounds, 2)

    reply = send_ask(RESULT, replace(given, result=stranger.result, data=b""))

    assert reply.code == "FC404"


@pytest.mark.usefixtures("at_two")
def test_no_result_but_that_of_the_last_round_ends_a_study(two_rounds: Repetition) -> None:
    assert send_ask(RESULT, given_of(two_rounds, 1)).code == "FC404"


@pytest.mark.usefixtures("at_site")
def test_what_a_site_reports_while_it_condenses_stands_in_its_own_journal(
    repetition: Repetition,
) -> None:
    send(CONTRIBUTE, repetition)

    (step,) = read_journal(
        RoundState(repetition.site("site-1"), repetition.study.digest, 1).journal
    )
    assert (step.stage, step.done, step.figures["loss"]) == ("condensing", 1, 0.5)


@pytest.mark.usefixtures("at_site")
def test_a_description_signed_by_another_key_is_refused_before_anything_is_computed(
    repetition: Repetition,
) -> None:
    for kind in (HELLO, CONTRIBUTE):
        reply = read_reply(send(kind, repetition, signer=SigningKey.generate()))

        assert reply == Reply(Outcome.FAILED, "FC404", key_of(repetition))
    assert repetition.starts("site-1") == []


@pytest.mark.usefixtures("at_site")
def test_a_study_file_that_site_toml_does_not_pin_is_refused(repetition: Repetition) -> None:
    path = repetition.site("site-1") / "study.toml"
    path.write_text(path.read_text().replace("images_per_class = 3", "images_per_class = 900"))

    reply = read_reply(send(CONTRIBUTE, repetition))

    assert reply == Reply(Outcome.FAILED, "FC404", key_of(repetition))
    assert repetition.starts("site-1") == []


@pytest.mark.parametrize(
    ("error", "outcome", "code"),
    [
        (ReleaseRefused(f"{PATIENT} is recognised", hint=PATIENT), Outcome.REFUSED, "FC401"),
        (DivergedError(f"{PATIENT}.ckpt", hint=PATIENT), Outcome.FAILED, "FC301"),
        (InternalError(PATIENT, hint=PATIENT), Outcome.FAILED, "FC901"),
        (ValueError(PATIENT), Outcome.FAILED, "FC901"),
        (FileNotFoundError(2, "no such file", f"/data/{PATIENT}.dcm"), Outcome.FAILED, "FC901"),
        (UnicodeDecodeError("ascii", PATIENT.encode(), 0, 1, PATIENT), Outcome.FAILED, "FC901"),
        (MemoryError(PATIENT), Outcome.FAILED, "FC901"),
        (ExceptionGroup(PATIENT, [KeyError(PATIENT)]), Outcome.FAILED, "FC901"),
    ],
)
def test_an_exception_becomes_a_code_and_its_text_stays_at_the_site(
    repetition: Repetition,
    at_site: Callable[[Contribute], None],
    error: Exception,
    outcome: Outcome,
    code: str,
) -> None:
    at_site(raising(error))

    message = send(CONTRIBUTE, repetition)

    log = repetition.site("site-1") / "errors.log"
    assert read_reply(message) == Reply(outcome, code, key_of(repetition))
    assert PATIENT not in repr(message)
    assert PATIENT in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_a_log_that_cannot_be_written_becomes_no_message_either(
    repetition: Repetition, at_site: Callable[[Contribute], None]
) -> None:
    (repetition.site("site-1") / "errors.log").mkdir()
    at_site(raising(ValueError(PATIENT)))

    message = send(CONTRIBUTE, repetition)

    assert read_reply(message).code == "FC901"
    assert PATIENT not in repr(message)


@pytest.mark.usefixtures("at_site")
def test_a_site_without_its_key_fails_with_the_keys_code(repetition: Repetition) -> None:
    (repetition.site("site-1") / "keys" / "signing.key").unlink()

    assert read_reply(send(HELLO, repetition)) == Reply(Outcome.FAILED, "FC403")


@pytest.mark.usefixtures("at_site")
def test_wrong_settings_of_a_site_are_named_by_their_code_alone(repetition: Repetition) -> None:
    path = repetition.site("site-1") / "site.toml"
    path.write_text(path.read_text() + f'patient = "{PATIENT}"\n')

    message = send(HELLO, repetition)

    assert read_reply(message) == Reply(Outcome.FAILED, "FC101")
    assert PATIENT not in repr(message)


@pytest.mark.usefixtures("at_site")
def test_a_node_that_plays_no_site_fails(
    repetition: Repetition, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = sign_description(repetition.description, repetition.operator)
    request = to_request(HELLO, 7, Ask(signed, 1), 60.0)

    beyond = read_reply(client_app.app(request, context(partition=3)))
    monkeypatch.delenv(SIMULATION)
    nowhere = read_reply(client_app.app(request, context()))

    assert beyond == nowhere == Reply(Outcome.FAILED, "FC502")


@pytest.mark.usefixtures("at_site")
def test_a_malformed_request_is_answered_with_a_code(repetition: Repetition) -> None:
    request = to_request(CONTRIBUTE, 7, Ask(b"{}", 1), 60.0)
    request.content["request"]["images_per_class"] = 10**6

    assert read_reply(client_app.app(request, context())) == Reply(Outcome.FAILED, "FC404")


@pytest.mark.parametrize("mode", list(ReleaseMode))
def test_the_release_mode_is_the_scenarios(
    repetition: Repetition, at_site: Callable[[Contribute], None], mode: ReleaseMode
) -> None:
    seen: list[ReleaseMode] = []
    at_site(lambda *_, mode, watch: seen.append(mode) or b"sealed")
    (repetition.path.parent / "scenario.toml").write_text(f'release = "{mode}"\n')

    send(CONTRIBUTE, repetition)

    assert seen == [mode]


def test_each_site_computes_with_its_own_number_of_threads(
    repetition: Repetition,
    at_site: Callable[[Contribute], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    path = repetition.site("site-1") / "site.toml"
    path.write_text("threads = 3\n" + path.read_text())

    send(CONTRIBUTE, repetition)

    assert seen == [3]


def test_the_module_holds_no_state_for_sites_share_processes() -> None:
    tree = ast.parse(Path(client_app.__file__).read_text())

    assigned = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]

    assert [ast.unparse(node) for node in assigned] == ["app = ClientApp()"]
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Global)]


def test_an_error_log_has_an_end(
    repetition: Repetition, at_site: Callable[[Contribute], None]
) -> None:
    at_site(raising(ValueError("newest")))
    log = repetition.site("site-1") / "errors.log"
    for _ in range(2):
        log.write_bytes(bytes(2**20 + 1))
        send(CONTRIBUTE, repetition)

    assert log.stat().st_size < 100_000
    assert "ValueError: newest" in log.read_text()
    kept = sorted(path.name for path in log.parent.glob("errors*"))
    assert kept == ["errors.log", "errors.old.log"]


def test_an_error_log_grows_and_keeps_what_stood_there(
    repetition: Repetition, at_site: Callable[[Contribute], None]
) -> None:
    at_site(raising(ValueError("first")))
    send(CONTRIBUTE, repetition)
    at_site(raising(ValueError("second \ud800")))

    send(CONTRIBUTE, repetition)

    text = (repetition.site("site-1") / "errors.log").read_text()
    assert "ValueError: first" in text
    assert "ValueError: second \\ud800" in text
    assert os.environ[SIMULATION] == str(repetition.path)
