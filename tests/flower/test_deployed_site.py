"""A hospital's client process: its limits come before its images, and no text leaves it."""

from __future__ import annotations

import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from joined_kit import Hospital, hospital, signed_description

import fedcondense
from fedcondense.config.scenario import ReleaseMode
from fedcondense.config.site import load_site
from fedcondense.errors import DataError
from fedcondense.exchange.keys import SigningKey, fingerprint_digits
from fedcondense.flower import client_app
from fedcondense.flower.home import SITE_CONFIG
from fedcondense.flower.messages import (
    CONTRIBUTE,
    HELLO,
    Ask,
    Outcome,
    Reply,
    read_reply,
    to_request,
)
from fedcondense.site.last_request import LastRequest, basis_of, last_request

PATIENT = "Jane Doe"


@pytest.fixture
def lakeside(tmp_path: Path) -> Hospital:
    """A hospital with a patient's name in every path."""
    return hospital(tmp_path / PATIENT / "lakeside")


class Condensations:
    """Stands in for a site's path to its images, and says how often it was gone."""

    def __init__(self) -> None:
        self.modes: list[ReleaseMode] = []
        self.raises: Exception | None = None

    def __call__(self, *_: object, mode: ReleaseMode, watch: object) -> bytes:
        self.modes.append(mode)
        if self.raises is not None:
            raise self.raises
        return b"sealed"


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> Condensations:
    module, condensations = ModuleType("fedcondense.site.contribute"), Condensations()
    module.contribute = condensations  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return condensations


def ask(site: Hospital, kind: str, round_number: int = 1, **arrays: Array) -> Message:
    """What the hospital answers to a request of this round."""
    request = to_request(kind, 7, Ask(signed_description(site), round_number), 60.0)
    if arrays:
        request.content["global"] = ArrayRecord(arrays)
    return client_app.app(request, context(site.settings))


def context(settings: Path) -> Context:
    return Context(1, 7, {SITE_CONFIG: str(settings)}, RecordDict(), {})


def key_of(site: Hospital) -> str:
    key = SigningKey.load(site.state / "keys" / "signing.key")
    return fingerprint_digits(key.fingerprint)


def refused(site: Hospital, code: str) -> Reply:
    return Reply(Outcome.FAILED, code, key_of(site))


def test_a_hospital_is_known_by_its_own_settings_and_always_enforces_its_gate(
    lakeside: Hospital, images: Condensations
) -> None:
    hello, contribution = (read_reply(ask(lakeside, kind)) for kind in (HELLO, CONTRIBUTE))

    assert hello == Reply(Outcome.READY, signing_key=key_of(lakeside))
    assert (contribution.outcome, contribution.sealed) == (Outcome.SEALED, b"sealed")
    assert images.modes == [ReleaseMode.ENFORCED]


@pytest.mark.parametrize("kind", [HELLO, CONTRIBUTE])
def test_a_run_whose_deadline_is_long_over_gets_nothing(
    lakeside: Hospital, images: Condensations, kind: str
) -> None:
    for seconds, outcome in ((-240.0, "FC000"), (-360.0, "FC404")):
        request = to_request(kind, 7, Ask(signed_description(lakeside, seconds), 1), 60.0)

        reply = read_reply(client_app.app(request, context(lakeside.settings)))

        assert (reply.code or "FC000") == outcome
    assert len(images.modes) == (kind == CONTRIBUTE)


@pytest.mark.parametrize(
    "limits",
    [
        {"max_synthetic_images": 5},
        {"messages": ["query.result"]},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [HELLO, CONTRIBUTE])
def test_a_study_beyond_the_limits_is_refused_before_any_image_is_read(
    lakeside: Hospital, images: Condensations, limits: dict[str, object], kind: str
) -> None:
    lakeside.change(limits=limits)

    reply = read_reply(ask(lakeside, kind))

    assert (reply.outcome, reply.code) == (Outcome.FAILED, "FC409")
    assert images.modes == []


def test_a_round_beyond_the_limits_is_refused_before_any_image_is_read(
    lakeside: Hospital, images: Condensations
) -> None:
    lakeside.change(limits={"max_rounds": 2})

    assert read_reply(ask(lakeside, CONTRIBUTE, 3)) == refused(lakeside, "FC409")
    assert images.modes == []


def test_too_many_requests_are_refused_before_any_image_is_read(
    lakeside: Hospital, images: Condensations
) -> None:
    lakeside.change(limits={"max_requests_per_round": 2})

    outcomes = [read_reply(ask(lakeside, CONTRIBUTE)) for _ in range(4)]

    assert [reply.code for reply in outcomes] == ["", "", "FC409", "FC409"]
    assert len(images.modes) == 2
    assert read_reply(ask(lakeside, HELLO)).outcome is Outcome.READY


def test_a_request_that_carries_too_much_is_refused_unread(
    lakeside: Hospital, images: Condensations
) -> None:
    lakeside.change(limits={"max_megabytes_in": 1})
    array = Array(np.zeros(1_000_001, np.uint8))

    reply = read_reply(ask(lakeside, CONTRIBUTE, images=array))

    assert reply.code == "FC409"
    assert images.modes == []


@pytest.mark.parametrize(
    "error",
    [
        DataError(f"{PATIENT}.dcm cannot be read", hint=PATIENT),
        FileNotFoundError(2, "no such file", f"/data/{PATIENT}.dcm"),
        ExceptionGroup(PATIENT, [ValueError(PATIENT)]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_text_of_an_exception_reaches_reply_or_log(
    lakeside: Hospital, images: Condensations, error: Exception, capfd: pytest.CaptureFixture[str]
) -> None:
    images.raises = error

    message = ask(lakeside, CONTRIBUTE)

    log = lakeside.state / "errors.log"
    traced = log.read_text()
    assert read_reply(message).outcome is Outcome.FAILED
    assert PATIENT not in repr(message)
    assert PATIENT not in traced.replace(str(lakeside.folder), "")
    assert type(error).__name__ in traced
    assert "raise self.raises" in traced
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert capfd.readouterr() == ("", "")


def test_the_log_names_code_and_cause_of_our_own_errors(
    lakeside: Hospital, images: Condensations
) -> None:
    images.raises = DataError("x", hint="y")
    images.raises.__cause__ = KeyError(PATIENT)

    ask(lakeside, CONTRIBUTE)

    text = (lakeside.state / "errors.log").read_text()
    assert text.index("KeyError") < text.index("DataError FC202")


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_text(f"{PATIENT} = 1")])
def test_settings_that_cannot_be_read_name_nothing_either(
    lakeside: Hospital, spoil: Callable[[Path], object], capfd: pytest.CaptureFixture[str]
) -> None:
    spoil(lakeside.settings)

    message = ask(lakeside, HELLO)

    assert read_reply(message) == Reply(Outcome.FAILED, "FC101")
    assert PATIENT not in repr(message)
    said = capfd.readouterr().err
    assert "SettingsError FC101" in said
    assert PATIENT not in said


def test_the_last_request_is_kept_as_codes(lakeside: Hospital, images: Condensations) -> None:
    ask(lakeside, HELLO)
    hello = last_request(lakeside.state)
    images.raises = ValueError(PATIENT)
    ask(lakeside, CONTRIBUTE)

    failed = last_request(lakeside.state)
    version = fedcondense.__version__
    assert hello is not None
    assert failed is not None
    assert replace(hello, basis="") == LastRequest(hello.when, HELLO, 1, "ready", "", version)
    assert failed == LastRequest(
        failed.when, CONTRIBUTE, 1, "failed", "FC901", version, hello.basis
    )
    assert hello.basis == basis_of(load_site(lakeside.settings))


def test_a_malformed_request_is_kept_without_a_version(lakeside: Hospital) -> None:
    request = to_request(HELLO, 7, Ask(b"{}", 1), 60.0)
    request.content["request"]["round"] = 0

    client_app.app(request, context(lakeside.settings))

    last = last_request(lakeside.state)
    assert last is not None
    assert (last.round, last.version, last.code) == (0, "", "FC404")


def test_no_message_can_choose_the_site(lakeside: Hospital, tmp_path: Path) -> None:
    other = hospital(tmp_path / "other")
    request = to_request(HELLO, 7, Ask(signed_description(lakeside), 1), 60.0)
    chosen = Context(
        1,
        7,
        {SITE_CONFIG: str(lakeside.settings)},
        RecordDict(),
        {SITE_CONFIG: str(other.settings)},
    )

    reply = read_reply(client_app.app(request, chosen))

    assert reply.signing_key == key_of(lakeside)


def test_a_site_that_cannot_pay_says_so_before_it_counts_for_a_quorum(lakeside: Hospital) -> None:
    lakeside.change(ledger={"epsilon": 8.0})  # pays for no study without differential privacy

    message = ask(lakeside, HELLO)

    assert read_reply(message).outcome is Outcome.REFUSED
    assert read_reply(message).code == "FC406"
