"""`check`, hop by hop: from the server's name to the study; the first broken hop ends it.

Nothing is changed on the way: no node is registered, activated or signed off, so that `check` may
run beside `join`. No torch is loaded.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import fedcondense
from fedcondense.config.site import SiteConfig
from fedcondense.errors import FedcondenseError
from fedcondense.flower.node_probe import NodeAnswer, Standing, probe_node
from fedcondense.flower.route import PATIENCE, HopBroken, Route, TunnelRefused
from fedcondense.site.doctor import Finding, Verdict, failed
from fedcondense.site.last_request import LastRequest, basis_of, last_request
from fedcondense.site.readiness import server_of

# Flower accepts a signature from 305 s old to 5 s in the future; a second is lost in rounding
MOST_AHEAD, MOST_BEHIND = 4.0, 300.0
_EXPIRED, _NOT_YET, _OTHER_NAME, _OTHER_ADDRESS = 10, 9, 62, 64  # OpenSSL's X509_V_ERR_*


def check_hops(site: SiteConfig) -> Iterator[Finding]:
    """Each hop from this machine to the study, up to the first broken one."""
    try:
        route = Route.of(server_of(site))
    except FedcondenseError as error:
        yield failed("server", error)
        return
    except HopBroken as broken:
        yield Finding("proxy", Verdict.FAILED, broken.text, broken.hint)
        return
    if route.proxy:
        text = f"connections go through {route.proxy.host}:{route.proxy.port} (HTTPS_PROXY)"
        yield Finding("proxy", Verdict.NOTE, text)
        if route.proxy.scheme != "http":
            yield Finding("proxy", Verdict.NOTE, "not an http:// proxy: the way is not looked at")
            return
    for what, hop in _HOPS.items():
        try:
            found = hop(route, site)
        except HopBroken as broken:
            yield Finding(what, Verdict.FAILED, broken.text, broken.hint)
            return
        yield found if isinstance(found, Finding) else Finding(what, Verdict.OK, found)


def _name(route: Route, site: SiteConfig) -> str:
    host, port = route.first
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        where = "HTTPS_PROXY" if route.proxy else "server.address"
        raise HopBroken(
            f"this machine does not know the name {host}",
            f"is {where} spelled right? else ask whoever runs this network's DNS",
        ) from None
    return f"{host} is {', '.join(sorted({str(entry[4][0]) for entry in found}))}"


def _connection(route: Route, site: SiteConfig) -> str:
    host, port = route.first
    whom = f"the proxy {host}" if route.proxy else host
    try:
        route.connect().close()
    except TunnelRefused as error:
        raise HopBroken(
            f"the proxy {host} does not connect to {route.host}, port {route.port}: {error}",
            "407: write user and password into HTTPS_PROXY; 403: ask whoever runs the proxy to "
            "allow CONNECT to the server; 5xx: perhaps its run has not begun, and `join` waits",
        ) from None
    except ConnectionRefusedError:
        raise HopBroken(f"{whom} refuses connections on port {port}", _refused(route)) from None
    except TimeoutError:
        raise HopBroken(
            f"{whom} does not answer on port {port}",
            f"a firewall drops it: ask for outgoing TCP to {host}:{port}",
        ) from None
    except OSError as error:
        raise HopBroken(
            f"no way to {whom}, port {port}: {(error.strerror or str(error)).lower()}",
            "ask whoever runs this network: the site needs one outgoing TCP connection",
        ) from None
    return f"{route.host} accepts connections on port {route.port}"


def _refused(route: Route) -> str:
    if route.proxy:
        return "HTTPS_PROXY has the wrong address, or the proxy is down"
    return (
        "no firewall: `fedcondense-server run` is not running there, and `join` waits for it; "
        "or server.address has the wrong port"
    )


def _encryption(route: Route, site: SiteConfig) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the next hop's question
    try:
        with context.wrap_socket(route.connect(), server_hostname=route.host) as channel:
            return str(channel.version())
    except OSError:
        raise HopBroken(
            "what answers there does not speak TLS",
            "server.address has the wrong port, or something on the way interferes",
        ) from None


def _authority(route: Route, site: SiteConfig) -> str:
    try:
        with route.trusting().wrap_socket(route.connect(), server_hostname=route.host):
            return "the server's certificate is of the authority that this site trusts"
    except ssl.SSLCertVerificationError as error:
        raise _mistrust(error, route.host) from None
    except OSError:
        raise HopBroken("the server broke off", "give the command again") from None


def _mistrust(error: ssl.SSLCertVerificationError, host: str) -> HopBroken:
    if error.verify_code in (_OTHER_NAME, _OTHER_ADDRESS):
        return HopBroken(
            f"the server's certificate does not name {host}",
            "use a name that it has, or ask the server operator to add this one",
        )
    if error.verify_code == _EXPIRED:
        return HopBroken(
            "the server's certificate has expired, or this machine's clock is ahead",
            "look at the date; else the server operator renews it",
        )
    if error.verify_code == _NOT_YET:
        return HopBroken(
            "the server's certificate is not valid yet, or this machine's clock is behind",
            "look at the date of this machine",
        )
    return HopBroken(
        "another authority issued the certificate that arrives here",
        "compare server.authority with the operator's file; else something inspects TLS on the way",
    )


def _server(route: Route, site: SiteConfig) -> str:
    status, _ = _health(route)
    if status == http.client.SERVICE_UNAVAILABLE:
        raise HopBroken(
            "the server is there, and its run has not begun",
            "`join` waits for it; ask the server operator when it begins",
        )
    if status != http.client.OK:
        raise HopBroken(
            f"what answers there is not the server of a study: HTTP {status}",
            "compare server.address with the server operator",
        )
    return "its run has begun"


def _clock(route: Route, site: SiteConfig) -> Finding | str:
    """Asked first, of any answer that has a date: a wrong clock explains most of what follows."""
    try:
        _, date = _health(route)
    except HopBroken:
        date = None
    if date is None:
        return Finding("clock", Verdict.NOTE, "the server does not say what time it has")
    ahead = time.time() - date
    if ahead > MOST_AHEAD or ahead < -MOST_BEHIND:
        how = "ahead" if ahead > 0 else "behind"
        raise HopBroken(
            f"this machine's clock is {abs(ahead):.0f} s {how} of the server's",
            "the server refuses such signatures: synchronise the clock (NTP) here or there",
        )
    return f"within {abs(ahead) + 1:.0f} s of the server's"


def _health(route: Route) -> tuple[int, float | None]:
    """The HTTP status of the server's /health, and its time in seconds since 1970 UTC."""
    connection = http.client.HTTPSConnection(
        route.host, route.port, timeout=PATIENCE, context=route.trusting()
    )
    try:
        connection.sock = route.trusting().wrap_socket(route.connect(), server_hostname=route.host)
        connection.request("GET", "/health")
        answer = connection.getresponse()
        date = answer.getheader("date")
        return answer.status, parsedate_to_datetime(date).timestamp() if date else None
    except (OSError, http.client.HTTPException, ValueError):
        raise HopBroken(
            "the server does not answer as it should", "ask the server operator to look at its log"
        ) from None
    finally:
        connection.close()


def _enrolment(route: Route, site: SiteConfig) -> str:
    answer = _answer_to_node(site)
    if answer.standing is Standing.UNKNOWN:
        raise HopBroken(
            "the server does not know this site's node key",
            "not enrolled yet, or revoked: hand the request that `init` wrote to the operator",
        )
    if answer.standing is Standing.UNSIGNED:
        raise HopBroken(
            "the server refuses this site's signature",
            "synchronise the clocks (NTP) here and there",
        )
    if answer.standing is Standing.UNCLEAR:
        raise HopBroken(
            f"the server answers HTTP {answer.status} to a node",
            "ask the server operator to look at its log",
        )
    return f"the server knows the node key of {site.name}"


def _versions(route: Route, site: SiteConfig) -> Finding | str:
    complaint = _answer_to_node(site).complaint
    if complaint:
        raise HopBroken(complaint, "site and server need the same version of Flower, 1.41")
    last = _last_of_today(site)
    if last is None or not last.version:
        text = "Flower's agree; fedcondense's are compared when the server asks"
        return Finding("versions", Verdict.NOTE, text)
    if last.version != fedcondense.__version__:
        raise HopBroken(
            f"the server had fedcondense {last.version} {_on(last)}, this site has "
            f"{fedcondense.__version__}",
            "install the version that the study agreed on",
        )
    return f"fedcondense {last.version} and Flower agree; the server asked {_on(last)}"


def _last_of_today(site: SiteConfig) -> LastRequest | None:
    """The last request, if it was judged by the study, the key and the version of now."""
    last = last_request(site.state)
    now = basis_of(site)
    return last if last is not None and last.basis == now else None


def _on(last: LastRequest) -> str:
    return time.strftime("on %Y-%m-%d at %H:%M UTC", time.gmtime(last.when))


def _answer_to_node(site: SiteConfig) -> NodeAnswer:
    try:
        return probe_node(site)
    except OSError as error:
        raise HopBroken(
            f"the server does not answer a node: {error}", "give the command again"
        ) from None
    except FedcondenseError as error:
        raise HopBroken(error.message, error.hint) from None


def _study(route: Route, site: SiteConfig) -> Finding | str:
    last = _last_of_today(site)
    if last is None:
        text = "the server has not asked this site yet, as it is now; see `join`"
        return Finding("study", Verdict.NOTE, text)
    if last.code:
        raise HopBroken(
            f"the server's last request, {last.kind} {_on(last)}, was answered with {last.code}",
            "docs/ref-errors.md says what it means; for FC404 compare study digest and fingerprint",
        )
    return f"the server's last request, {last.kind} {_on(last)}, was one that this site agreed to"


_HOPS = {
    "name": _name,
    "connection": _connection,
    "encryption": _encryption,
    "authority": _authority,
    "clock": _clock,
    "server": _server,
    "enrolment": _enrolment,
    "versions": _versions,
    "study": _study,
}
