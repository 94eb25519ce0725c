"""Flower's SuperLink behind two ports of one server: a program, run in a process of its own.

The public port shows the Fleet API and health; everything else is on 127.0.0.1 alone. The process
also ends when the superexec that it started has died, which Flower itself does not notice: whoever
supervises it starts both again.

Usage: python -m fedcondense.flower.superlink_process
    --public HOST PORT --ready FILE --largest BYTES --budget BYTES -- ARGUMENTS OF flower-superlink
"""

from __future__ import annotations

import argparse
import importlib
import logging
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedcondense.flower.public_crowd import MOST_BODIES, PublicCrowd
from fedcondense.flower.public_door import PublicDoor

FLOWER = "flwr.superlink.cli.flower_superlink"  # as an attribute, its name is a function's
SUPEREXEC_LOST = 3  # exit code
LOOK_EVERY = 1.0  # seconds between two looks at superexec
BACKLOG = 128  # connections that wait to be accepted
_log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Serve until a signal stops it or superexec has died; the exit code of the process."""
    split = list(arguments).index("--")
    ours = _parser().parse_args(arguments[:split])
    flower = importlib.import_module(FLOWER)
    sys.argv = ["flower-superlink", *arguments[split + 1 :]]
    config = flower._parse_superlink_lifespan_config()
    app = importlib.import_module("flwr.superlink.main").create_app(
        config, flower.SuperLinkLifespan
    )
    crowd = PublicCrowd(app, MOST_BODIES * ours.largest)
    door = PublicDoor(crowd, config.port, ours.ready, ours.largest, ours.budget)
    sockets = [_listen(config.host, config.port), _listen(ours.public[0], int(ours.public[1]))]
    return _serve(_server(door, config), app.state.superlink_lifespan, sockets)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="superlink_process")
    parser.add_argument("--public", nargs=2, required=True, metavar=("HOST", "PORT"))
    parser.add_argument("--ready", type=Path, required=True)
    parser.add_argument("--largest", type=int, required=True)
    parser.add_argument("--budget", type=int, required=True)
    return parser


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both)


def _server(door: PublicDoor, config: Any) -> Any:
    uvicorn = importlib.import_module("uvicorn")
    return uvicorn.Server(
        uvicorn.Config(
            door,
            ssl_certfile=config.ssl_certfile,
            ssl_keyfile=config.ssl_keyfile,
            access_log=False,  # addresses of hospitals are nobody's business
            log_level="warning",
            proxy_headers=False,  # nobody tells us by a header who they are
            server_header=False,
            ws="none",
        )
    )


def _serve(server: Any, lifespan: Any, sockets: list[socket.socket]) -> int:
    """Flower's own signal handling stops it; a dead superexec does, too."""
    lost = threading.Event()

    def watch() -> None:
        while not server.should_exit:
            child = lifespan.superexec_process
            if child is not None and child.poll() is not None:
                _log.error("superexec has died, the SuperLink ends with it")
                lost.set()
                server.should_exit = True
            time.sleep(LOOK_EVERY)

    threading.Thread(target=watch, daemon=True).start()
    server.run(sockets=sockets)
    return SUPEREXEC_LOST if lost.is_set() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
