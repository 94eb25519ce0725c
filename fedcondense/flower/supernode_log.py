"""What Flower's SuperNode prints, kept short, and what can be learned from it."""

from __future__ import annotations

import os
from pathlib import Path

LONGEST = 8 * 2**20  # bytes; a server that is away for months must not fill a disk
_LOOKED_AT = 64 * 1024  # bytes from the end
CONNECTED = b"SuperNode ID: "
SENDING = b"Sending: "
THROUGH = (b"Sent successfully", b"Failed to send message", b"is not in `RUNNING` status")
# what Flower prints before it ends, and what that means to an operator; the first match counts
_REASONS = {
    b"[code: 2004]": "the server refused the node key: not enrolled, revoked, or restarted within "
    "a minute",
    b"SSL/TLS handshake error": "the server's certificate was not accepted: see `check`",
    b"address already in use": "a port of this machine was taken",
    b"SuperNode terminated gracefully": "the server refused the node's signature: revoked, or a "
    "clock is wrong",
}


class SupernodeLog:
    """The log of one SuperNode after the other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = 0

    def begin(self) -> None:
        """From here on it is the log of a new SuperNode."""
        self._start = self._size()

    def is_connected(self) -> bool:
        """Whether the server has accepted this SuperNode."""
        return CONNECTED in self._newest()

    def is_sending(self) -> bool:
        """Whether it has begun to send an answer and is not through with it."""
        newest = self._newest()
        return newest.rfind(SENDING) > max(newest.rfind(end) for end in THROUGH)

    def reason(self, code: int | None) -> str:
        """Why this SuperNode ended, in one line; `code` is its exit code."""
        newest = self._newest()
        for mark, reason in _REASONS.items():
            if mark in newest:
                return reason
        return f"the SuperNode ended with exit code {code}"

    def keep_short(self) -> None:
        """Forget what is older than the last pages; the writer appends and does not notice."""
        if self._size() > LONGEST:
            os.truncate(self.path, 0)
            self._start = 0

    def _newest(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(max(self._start, self._size() - _LOOKED_AT))
                return file.read()
        except FileNotFoundError:
            return b""

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0
