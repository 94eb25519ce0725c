"""What a supervisor tells systemd (sd_notify): ready, stopping, and one line of status."""

from __future__ import annotations

import contextlib
import os
import socket

READY = "READY=1"
STOPPING = "STOPPING=1"


def notify(*lines: str) -> None:
    """Send `lines` to the service manager; without one, nothing happens.

    A line is `READY`, `STOPPING` or `STATUS=...`; the protocol is that of sd_notify(3).
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    path = "\0" + address[1:] if address.startswith("@") else address
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
        peer.sendto("\n".join(lines).encode(), path)
