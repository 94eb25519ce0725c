"""How much of the Fleet API is answered at once, so that strangers cannot fill the memory.

Flower reads a request's whole body before it knows who sent it. uvicorn's own `limit_concurrency`
counts all connections of the process together: strangers at the public port would shut Flower's
own processes out of the other one. So what is under way is counted here, by the path that sites
alone use.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus

from fedcondense.flower.public_door import FLEET, App, Receive, Scope, Send, answer

MOST_REQUESTS = 256  # a SuperNode has a few open at once
MOST_BODIES = 32  # of the largest size


@dataclass
class PublicCrowd:
    """An ASGI application between the door, which has looked at the lengths, and Flower.

    At most `most_requests` of the Fleet API are under way at once, and bodies of `most_bytes`
    together, as their headers announce them; whoever comes then hears that it should come again.
    """

    app: App
    most_bytes: int
    most_requests: int = MOST_REQUESTS
    _requests: int = field(default=0, init=False)
    _bytes: int = field(default=0, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, unless there are too many."""
        if scope["type"] != "http" or not scope["path"].startswith(FLEET):
            await self.app(scope, receive, send)
            return
        length = int(dict(scope["headers"]).get(b"content-length", b"0"))
        if self._requests >= self.most_requests or self._bytes + length > self.most_bytes:
            await answer(HTTPStatus.SERVICE_UNAVAILABLE, send)
            return
        self._requests, self._bytes = self._requests + 1, self._bytes + length
        try:
            await self.app(scope, receive, send)
        finally:
            self._requests, self._bytes = self._requests - 1, self._bytes - length
