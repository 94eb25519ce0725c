"""The doctor on the way to the server: the first broken hop, in plain words."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path

import pytest
from joined_kit import HOST, Hospital, certify, hospital

import fedcondense
from fedcondense.config.site import load_site
from fedcondense.exchange import certificates
from fedcondense.exchange.certificates import (
    Authority,
    ServerTls,
    create_authority,
    issue_certificate,
)
from fedcondense.flower import route
from fedcondense.flower.hops import check_hops
from fedcondense.flower.node_probe import NodeAnswer, Standing
from fedcondense.flower.processes import free_port
from fedcondense.site.doctor import Finding, Verdict
from fedcondense.site.last_request import LastRequest, basis_of, note_request

USER_AND_PASSWORD = base64.b64encode(b"operator:pass/word").decode()
STANDING = (Standing.KNOWN, 400, "")
KNOWN, UNKNOWN = (400, 2003), (412, 2004)  # HTTP status and Flower's code


@dataclass
class Server:
    """What a server's public port answers."""

    tls: ServerTls
    host: str = HOST
    port: int = field(default_factory=free_port)
    health: int = 200
    node: tuple[int, int] = KNOWN
    ahead: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def start(self) -> HTTPServer:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(server.health, b"")

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                status, code = server.node
                self.answer(status, json.dumps({"code": code, "detail": "no"}).encode())

            def answer(self, status: int, body: bytes) -> None:
                server.asked.append(self.path)
                self.send_response_only(status)
                self.send_header("date", formatdate(time.time() + server.ahead, usegmt=True))
                self.send_header("content-length", str(len(body)))
                for name, value in server.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        http = HTTPServer((self.host, self.port), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.tls.certificate, self.tls.key)
        # shaken hands where it is served, so that a broken one ends no server
        http.socket = context.wrap_socket(http.socket, server_side=True)
        http.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        return http


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ServerTls:
    folder = tmp_path_factory.mktemp("tls")
    files = ServerTls(folder / "server.pem", folder / "server.key", folder / "authority.pem")
    certify(files, HOST)
    return files


@pytest.fixture
def server(tls: ServerTls) -> Iterator[Server]:
    server = Server(tls)
    http = server.start()
    yield server
    http.shutdown()
    http.server_close()


@pytest.fixture
def lakeside(tmp_path: Path, server: Server) -> Hospital:
    site = hospital(tmp_path / "lakeside")
    point(site, f"{HOST}:{server.port}", server.tls.authority)
    return site


def point(site: Hospital, address: str, authority: Path) -> None:
    site.change(server={"address": address, "authority": str(authority)})


def found(site: Hospital) -> list[Finding]:
    return list(check_hops(load_site(site.settings)))


def noted(site: Hospital, *, code: str = "", version: str = fedcondense.__version__) -> None:
    """The server has asked the site as it is now."""
    config = load_site(site.settings)
    outcome = "failed" if code else "ready"
    last = LastRequest(86_400, "query.hello", 1, outcome, code, version, basis_of(config))
    note_request(config.state, last)


def broken(site: Hospital) -> Finding:
    """The last line, which names what is broken; all before it are in order."""
    *before, last = found(site)
    assert Verdict.FAILED not in {finding.verdict for finding in before}
    assert last.verdict is Verdict.FAILED
    assert last.hint
    return last


def test_every_hop_in_order_has_its_line(lakeside: Hospital) -> None:
    noted(lakeside)

    findings = found(lakeside)

    assert [finding.what for finding in findings] == [
        "name",
        "connection",
        "encryption",
        "authority",
        "clock",
        "server",
        "enrolment",
        "versions",
        "study",
    ]
    assert {finding.verdict for finding in findings} == {Verdict.OK}


def test_before_the_server_has_asked_versions_and_study_are_notes(lakeside: Hospital) -> None:
    *rest, versions, study = found(lakeside)

    assert {finding.verdict for finding in rest} == {Verdict.OK}
    assert (versions.verdict, study.verdict) == (Verdict.NOTE, Verdict.NOTE)


def test_nothing_is_registered_or_activated(lakeside: Hospital, server: Server) -> None:
    found(lakeside)

    assert set(server.asked) == {"/health", "/v1/fleet/activate-node"}


def test_a_name_that_nobody_knows(lakeside: Hospital, server: Server) -> None:
    point(lakeside, "no-such-host.invalid:8444", server.tls.authority)

    assert broken(lakeside).text == "this machine does not know the name no-such-host.invalid"


def test_a_port_where_nobody_listens(lakeside: Hospital, server: Server) -> None:
    port = free_port()
    point(lakeside, f"{HOST}:{port}", server.tls.authority)

    last = broken(lakeside)

    assert last.text == f"{HOST} refuses connections on port {port}"
    assert "no firewall" in last.hint
    assert "`join` waits for it" in last.hint


def test_a_firewall_that_drops(
    lakeside: Hospital, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dropped(*_: object, **__: object) -> socket.socket:
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", dropped)

    last = broken(lakeside)

    assert last.what == "connection"
    assert last.hint == f"a firewall drops it: ask for outgoing TCP to {HOST}:{server.port}"


def test_something_that_speaks_no_tls(
    lakeside: Hospital, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route, "PATIENCE", 0.3)
    with socket.create_server((HOST, 0)) as silent:
        point(lakeside, f"{HOST}:{silent.getsockname()[1]}", server.tls.authority)

        assert broken(lakeside).text == "what answers there does not speak TLS"


def test_a_certificate_of_another_authority(lakeside: Hospital, server: Server) -> None:
    other = Authority(lakeside.folder / "other.pem", lakeside.folder / "other.key")
    create_authority(other, "other")
    point(lakeside, f"{HOST}:{server.port}", other.certificate)

    last = broken(lakeside)

    assert last.what == "authority"
    assert "something inspects TLS on the way" in last.hint


def test_a_certificate_that_does_not_name_the_server(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("elsewhere")
    files = ServerTls(folder / "server.pem", folder / "server.key", folder / "authority.pem")
    certify(files, "server.example.org")
    server = Server(files, host="127.0.0.2")
    http = server.start()
    site = hospital(tmp_path / "lakeside")
    point(site, f"127.0.0.2:{server.port}", files.authority)

    last = broken(site)

    http.shutdown()
    http.server_close()
    assert last.text == "the server's certificate does not name 127.0.0.2"


def test_an_authority_file_without_a_certificate(lakeside: Hospital, server: Server) -> None:
    (lakeside.folder / "empty.pem").write_text("Jane Doe")
    point(lakeside, f"{HOST}:{server.port}", lakeside.folder / "empty.pem")

    last = broken(lakeside)

    assert (last.what, last.text) == ("server", "empty.pem: not a certificate in PEM form")


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (503, "the server is there, and its run has not begun"),
        (404, "what answers there is not the server of a study: HTTP 404"),
    ],
)
def test_a_server_that_is_not_ready_or_another(
    lakeside: Hospital, server: Server, status: int, text: str
) -> None:
    server.health = status

    assert broken(lakeside).text == text


@pytest.mark.parametrize(("ahead", "how"), [(-60.0, "ahead"), (400.0, "behind")])
def test_a_clock_beyond_flowers_window(
    lakeside: Hospital, server: Server, ahead: float, how: str
) -> None:
    server.ahead = ahead

    last = broken(lakeside)

    assert last.what == "clock"
    assert f" s {how} of the server's" in last.text
    assert "NTP" in last.hint


def test_a_clock_that_is_a_minute_behind_is_accepted(lakeside: Hospital, server: Server) -> None:
    server.ahead = 60.0

    assert {finding.what: finding.verdict for finding in found(lakeside)}["clock"] is Verdict.OK


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (UNKNOWN, "the server does not know this site's node key"),
        ((401, 0), "the server refuses this site's signature"),
        ((500, 0), "the server answers HTTP 500 to a node"),
        ((400, 77), "the server answers HTTP 400 to a node"),
    ],
)
def test_a_node_that_the_server_does_not_accept(
    lakeside: Hospital, server: Server, answer: tuple[int, int], text: str
) -> None:
    server.node = answer

    last = broken(lakeside)

    assert (last.what, last.text) == ("enrolment", text)


def test_another_version_of_flower(lakeside: Hospital, server: Server) -> None:
    server.headers["flwr-version-incompatibility-message"] = "1.40 does not fit 1.41"

    last = broken(lakeside)

    assert (last.what, last.text) == ("versions", "1.40 does not fit 1.41")


def test_another_version_of_fedcondense(lakeside: Hospital) -> None:
    noted(lakeside, version="9.9.9")

    assert broken(lakeside).text == (
        "the server had fedcondense 9.9.9 on 1970-01-02 at 00:00 UTC, this site has "
        f"{fedcondense.__version__}"
    )


def test_a_request_that_the_site_did_not_agree_to(lakeside: Hospital) -> None:
    noted(lakeside, code="FC404")

    finding = broken(lakeside)

    assert finding.what == "study"
    assert finding.text == (
        "the server's last request, query.hello on 1970-01-02 at 00:00 UTC, was answered with FC404"
    )


def test_a_site_without_a_server_has_one_line(lakeside: Hospital) -> None:
    del lakeside.values["server"]
    lakeside.change()

    (finding,) = found(lakeside)

    assert (finding.what, finding.verdict) == ("server", Verdict.FAILED)


@pytest.mark.parametrize(
    "change",
    [{"study_digest": "ab" * 32}, {"run_signing_fingerprint": "cd" * 32}],
    ids=["study", "key"],
)
@pytest.mark.parametrize("code", ["", "FC404"])
def test_the_answer_to_another_study_or_key_says_nothing_of_this_one(
    lakeside: Hospital, change: dict[str, object], code: str
) -> None:
    noted(lakeside, code=code, version="9.9.9")
    lakeside.change(**change)

    *_, versions, study = found(lakeside)

    assert (versions.verdict, study.verdict) == (Verdict.NOTE, Verdict.NOTE)
    assert "has not asked this site yet" in study.text


def test_an_answer_of_an_older_version_says_nothing_of_this_one(
    lakeside: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted(lakeside, version="9.9.9")
    monkeypatch.setattr(fedcondense, "__version__", "9.9.9")

    assert found(lakeside)[-2].verdict is Verdict.NOTE


@pytest.mark.parametrize("status", [503, 404])
def test_the_clock_is_compared_also_where_the_run_has_not_begun(
    lakeside: Hospital, server: Server, status: int
) -> None:
    server.health, server.ahead = status, 4000.0

    assert broken(lakeside).what == "clock"


@pytest.mark.parametrize(
    ("days", "text"),
    [
        (1000, "the server's certificate is not valid yet, or this machine's clock is behind"),
        (-1000, "the server's certificate has expired, or this machine's clock is ahead"),
    ],
)
def test_a_certificate_out_of_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int, text: str
) -> None:
    class Elsewhen(datetime):
        """The clock of whoever issued the certificate."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) + timedelta(days=days)

    files = ServerTls(tmp_path / "server.pem", tmp_path / "server.key", tmp_path / "authority.pem")
    authority = Authority(files.authority, tmp_path / "authority.key")
    create_authority(authority, "test")
    monkeypatch.setattr(certificates, "datetime", Elsewhen)
    issue_certificate(files, authority, [HOST])
    server = Server(files)
    http = server.start()
    site = hospital(tmp_path / "lakeside")
    point(site, f"{HOST}:{server.port}", files.authority)

    last = broken(site)

    http.shutdown()
    http.server_close()
    assert (last.what, last.text) == ("authority", text)


def through(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    """Make the environment name a proxy."""
    for name in ("no_proxy", "NO_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy)


@dataclass
class Proxy:
    """An HTTP proxy that wants a password."""

    status: int = 200
    asked: list[str] = field(default_factory=list)

    def start(self) -> HTTPServer:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_CONNECT(self) -> None:
                authorization = self.headers["proxy-authorization"] or ""
                proxy.asked += [self.path, authorization]
                status = proxy.status if authorization == f"Basic {USER_AND_PASSWORD}" else 407
                self.send_response_only(status)
                self.end_headers()
                if status == 200:
                    host, _, port = self.path.rpartition(":")
                    with socket.create_connection((host, int(port))) as far:
                        threading.Thread(target=carry, args=(far, self.connection)).start()
                        carry(self.connection, far)
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        http = ThreadingHTTPServer((HOST, 0), Handler)
        http.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        return http


def carry(here: socket.socket, there: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := here.recv(65_536):
            there.sendall(data)
        there.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy() -> Iterator[tuple[Proxy, int]]:
    proxy = Proxy()
    http = proxy.start()
    yield proxy, http.server_port
    http.shutdown()
    http.server_close()


def test_a_proxy_is_named_and_taken(lakeside: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    through(monkeypatch, f"http://{HOST}:{port}")

    proxy, *_, last = found(lakeside)

    assert (proxy.what, proxy.verdict) == ("proxy", Verdict.NOTE)
    assert last.text == f"the proxy {HOST} refuses connections on port {port}"
    assert "HTTPS_PROXY" in last.hint


def test_a_password_opens_the_proxy_and_is_never_shown(
    lakeside: Hospital, monkeypatch: pytest.MonkeyPatch, proxy: tuple[Proxy, int], server: Server
) -> None:
    monkeypatch.setattr("fedcondense.flower.hops.probe_node", lambda _: NodeAnswer(*STANDING))
    through(monkeypatch, f"http://operator:pa%73s%2Fword@{HOST}:{proxy[1]}")

    findings = found(lakeside)

    assert findings[0].text == f"connections go through {HOST}:{proxy[1]} (HTTPS_PROXY)"
    assert Verdict.FAILED not in {finding.verdict for finding in findings}
    assert set(proxy[0].asked) == {f"{HOST}:{server.port}", f"Basic {USER_AND_PASSWORD}"}
    assert not any(word in repr(findings) for word in ("operator:", "pa%73s", "pass/word"))


@pytest.mark.parametrize(
    ("user", "status", "told"),
    [("", 200, "HTTP 407"), ("operator:pass%2Fword@", 403, "HTTP 403")],
)
def test_a_proxy_that_does_not_connect_says_why(
    lakeside: Hospital,
    monkeypatch: pytest.MonkeyPatch,
    proxy: tuple[Proxy, int],
    server: Server,
    user: str,
    status: int,
    told: str,
) -> None:
    proxy[0].status = status
    through(monkeypatch, f"http://{user}{HOST}:{proxy[1]}")

    last = broken(lakeside)

    assert last.what == "connection"
    assert last.text == f"the proxy {HOST} does not connect to {HOST}, port {server.port}: {told}"


def test_what_is_no_proxy_at_all(
    lakeside: Hospital, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    monkeypatch.setattr(route, "PATIENCE", 0.3)
    with socket.create_server((HOST, 0)) as silent:
        through(monkeypatch, f"{HOST}:{silent.getsockname()[1]}")

        assert broken(lakeside).text.endswith("it does not answer")


@pytest.mark.parametrize("address", ["http://user:secret@proxy:port", "http://[::1", "http://"])
def test_the_address_of_a_proxy_that_is_none(
    lakeside: Hospital, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    through(monkeypatch, address)

    (finding,) = found(lakeside)

    assert (finding.what, finding.verdict) == ("proxy", Verdict.FAILED)
    assert finding.text == "HTTPS_PROXY is not the address of a proxy"


def test_the_name_of_a_proxy_that_nobody_knows(
    lakeside: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    through(monkeypatch, "http://no-such-proxy.invalid:3128")

    last = broken(lakeside)

    assert last.what == "name"
    assert last.hint.startswith("is HTTPS_PROXY spelled right?")


def test_a_proxy_of_another_kind_is_not_looked_through(
    lakeside: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    through(monkeypatch, "socks5://proxy.example.org:1080")

    assert {finding.verdict for finding in found(lakeside)} == {Verdict.NOTE}
