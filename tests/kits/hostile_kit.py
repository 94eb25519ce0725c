"""Flower apps that a hostile server would submit: code that marks whoever runs it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import tomli_w
from flwr.cli.build import build_fab_from_disk

CLIENT = """
import os
from pathlib import Path
Path({marks!r}, f"{{os.environ.get('FLWR_HOME', '')}}".replace("/", "_")).touch()
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()

@app.query("hello")
def hello(message, context):
    return Message(RecordDict({{"hostile": ConfigRecord({{"ran": "yes"}})}}), reply_to=message)
"""
SERVER = """
import json, time
from pathlib import Path
from flwr.serverapp import ServerApp
from fedcondense.flower.messages import Ask, to_request
app = ServerApp()

@app.main()
def main(grid, context):
    while len(nodes := list(grid.get_node_ids())) < {nodes}:
        time.sleep(0.5)
    ask = Ask(bytes.fromhex({description!r}), 1)
    messages = [to_request({kind!r}, node, ask, 60.0) for node in nodes]
    waiting = set(grid.push_messages(messages))
    replies, until = [], time.monotonic() + 80
    while waiting and time.monotonic() < until:
        for reply in grid.pull_messages(waiting):
            waiting.discard(reply.metadata.reply_to_message_id)
            if reply.has_error():
                found = {{"error": reply.error.code, "reason": reply.error.reason}}
            else:
                found = {{
                    name: dict(record) for name, record in reply.content.items()
                    if name != "sealed"
                }}
            replies.append(found)
        time.sleep(0.5)
    path = Path(str(context.run_config["out"]))
    path.with_suffix(".tmp").write_text(json.dumps(replies))
    path.with_suffix(".tmp").rename(path)
"""


@dataclass(frozen=True)
class App:
    """A folder that `flwr run` takes, and the digest of the bundle that it becomes."""

    folder: Path

    @property
    def digest(self) -> str:
        return hashlib.sha256(build_fab_from_disk(self.folder)).hexdigest()


def hostile_app(
    folder: Path, *, name: str, marks: Path, description: bytes, nodes: int, kind: str
) -> App:
    """An app whose client code leaves a file in `marks`, and whose ServerApp asks as ours does."""
    (folder / "hostile").mkdir(parents=True)
    project = {
        "project": {
            "name": name,
            "version": "1.0.0",
            "license": {"file": "LICENSE"},
            "dependencies": ["flwr>=1.41,<1.42"],
        },
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "fedcondense",
                    "fab-format-version": 1,
                    "flwr-version-target": "1.41.0",
                    "fab-include": ["LICENSE", "hostile/*.py"],
                    "components": {
                        "serverapp": "hostile.server:app",
                        "clientapp": "hostile.client:app",
                    },
                    "config": {"out": ""},
                }
            }
        },
    }
    (folder / "pyproject.toml").write_text(tomli_w.dumps(project))
    (folder / "LICENSE").write_text("none\n")
    (folder / "hostile" / "__init__.py").write_text("")
    (folder / "hostile" / "client.py").write_text(CLIENT.format(marks=str(marks)))
    server = SERVER.format(nodes=nodes, description=description.hex(), kind=kind)
    (folder / "hostile" / "server.py").write_text(server)
    return App(folder)
