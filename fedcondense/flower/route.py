"""The way from a site to its server: the one that Flower takes, too."""

from __future__ import annotations

import http.client
import socket
import ssl
import urllib.request
from dataclasses import dataclass
from urllib.parse import urlsplit

from fedcondense.config.site import ServerAddress

PATIENCE = 10.0  # seconds for each answer
PROXY_PORT = 3128  # where HTTPS_PROXY names none


class HopBroken(Exception):
    """What is wrong with a hop, and what to do."""

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint


@dataclass(frozen=True)
class Route:
    """The way to the server: its address, the authority that is trusted, and a proxy if any."""

    host: str
    port: int
    authority: str
    proxy: str

    @classmethod
    def of(cls, server: ServerAddress) -> Route:
        """The way that Flower takes, too: it follows HTTPS_PROXY and NO_PROXY."""
        host, _, port = server.address.rpartition(":")
        host = host.strip("[]")
        proxy = urllib.request.getproxies().get("https", "")
        used = bool(proxy) and not urllib.request.proxy_bypass(host)
        return cls(host, int(port), str(server.authority), proxy if used else "")

    @property
    def first(self) -> tuple[str, int]:
        """Whom this machine itself connects to."""
        if not self.proxy:
            return self.host, self.port
        parts = urlsplit(self.proxy if "//" in self.proxy else f"//{self.proxy}")
        return parts.hostname or "", parts.port or PROXY_PORT

    def connect(self) -> socket.socket:
        """An open connection to the server.

        Raises:
            OSError: there is none.
        """
        if not self.proxy:
            return socket.create_connection(self.first, PATIENCE)
        tunnel = http.client.HTTPConnection(*self.first, timeout=PATIENCE)
        tunnel.set_tunnel(self.host, self.port)
        tunnel.connect()
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
