"""The way from a site to its server: the one that Flower takes, too."""

from __future__ import annotations

import base64
import http.client
import re
import socket
import ssl
import urllib.request
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from fedcondense.config.site import ServerAddress

PATIENCE = 10.0  # seconds for each answer
PROXY_PORT = 3128  # where HTTPS_PROXY names none


class HopBroken(Exception):
    """What is wrong with a hop, and what to do."""

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint


class TunnelRefused(OSError):
    """A proxy answered, and did not connect; the text says how, and quotes nothing of it."""


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy. Its password is in `headers` alone, which are never shown."""

    scheme: str
    host: str
    port: int
    headers: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, address: str) -> Proxy:
        """The proxy that an environment variable names, perhaps with user and password.

        Raises:
            HopBroken: it is no address; it is not quoted, for it may hold a password.
        """
        try:
            parts = urlsplit(address if "//" in address else f"http://{address}")
            host, port = parts.hostname, parts.port or PROXY_PORT
        except ValueError:
            host, port = None, 0
        if not host:
            raise HopBroken(
                "HTTPS_PROXY is not the address of a proxy",
                "write http://host:port, or http://user:password@host:port",
            )
        return cls(parts.scheme.lower(), host, port, _authorization(parts))


def _authorization(parts: SplitResult) -> dict[str, str]:
    if parts.username is None:
        return {}
    word = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(word.encode()).decode('ascii')}"}


def _why_refused(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer"
    status = re.match(r"Tunnel connection failed: (\d{3})\b", str(error))
    return f"HTTP {status[1]}" if status else "no HTTP proxy"


@dataclass(frozen=True)
class Route:
    """The way to the server: its address, the authority that is trusted, and a proxy if any."""

    host: str
    port: int
    authority: str
    proxy: Proxy | None = None

    @classmethod
    def of(cls, server: ServerAddress) -> Route:
        """The way that Flower takes, too: it follows HTTPS_PROXY, ALL_PROXY and NO_PROXY.

        Raises:
            HopBroken: the proxy's address is none.
        """
        host, _, port = server.address.rpartition(":")
        host = host.strip("[]")
        proxies = urllib.request.getproxies()
        address = proxies.get("https") or proxies.get("all", "")
        used = bool(address) and not urllib.request.proxy_bypass(host)
        proxy = Proxy.of(address) if used else None
        return cls(host, int(port), str(server.authority), proxy)

    @property
    def first(self) -> tuple[str, int]:
        """Whom this machine itself connects to."""
        return (self.proxy.host, self.proxy.port) if self.proxy else (self.host, self.port)

    def connect(self) -> socket.socket:
        """An open connection to the server.

        Raises:
            TunnelRefused: the proxy is there, and does not connect to the server.
            OSError: there is no connection.
        """
        if not self.proxy:
            return socket.create_connection(self.first, PATIENCE)
        socket.create_connection(self.first, PATIENCE).close()  # what fails then, the proxy refused
        tunnel = http.client.HTTPConnection(*self.first, timeout=PATIENCE)
        host = f"[{self.host}]" if ":" in self.host else self.host
        tunnel.set_tunnel(host, self.port, self.proxy.headers)
        try:
            tunnel.connect()
        except (OSError, http.client.HTTPException) as error:
            tunnel.close()
            raise TunnelRefused(_why_refused(error)) from None
        return tunnel.sock

    def trusting(self) -> ssl.SSLContext:
        """TLS that accepts the authority's certificates and no other.

        Raises:
            HopBroken: the authority's file holds none.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(self.authority)
        except (OSError, ssl.SSLError):
            raise HopBroken(
                "the file in server.authority holds no certificate",
                "put the file there that the server operator gave",
            ) from None
        return context
