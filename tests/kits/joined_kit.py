"""Hospitals as `init` leaves them, `join` as a process, and a stock SuperLink to join."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import tomli_w
from wire_kit import RUN, small_study

from fedcondense.config.study import Study
from fedcondense.exchange.certificates import (
    Authority,
    ServerTls,
    create_authority,
    issue_certificate,
)
from fedcondense.exchange.keys import OpeningKey, SigningKey
from fedcondense.exchange.node_key import NodeKey
from fedcondense.exchange.run_description import RunDescription, sign_description
from fedcondense.flower.processes import Children, free_port, program

HOST = "127.0.0.1"
JOIN = """
import sys
from pathlib import Path
from fedcondense.flower.supernode import join
join(Path(sys.argv[1]), tell=lambda line: print(line, flush=True))
"""


def eventually(true: Callable[[], object], seconds: float = 60.0, what: str = "it") -> None:
    """Wait until `true()`; fail after `seconds`."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"{what} did not happen in {seconds} s"
        time.sleep(0.1)


@dataclass
class Hospital:
    """One site's folder as `init` leaves it and its operator fills it in."""

    folder: Path
    study: Study
    operator: SigningKey
    values: dict[str, object] = field(default_factory=dict)

    @property
    def settings(self) -> Path:
        return self.folder / "SITE.toml"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def node_public(self) -> str:
        return NodeKey.load(self.state / "keys" / "node.key").public

    def settle(self, address: str, authority: Path, **values: object) -> None:
        """Write study, keys and SITE.toml."""
        self.folder.mkdir(parents=True, exist_ok=True)
        study = self.study.model_dump(mode="json", exclude_none=True)
        (self.folder / "study.toml").write_text(tomli_w.dumps(study))
        SigningKey.generate().save(self.state / "keys" / "signing.key")
        NodeKey.generate().save(self.state / "keys" / "node.key")
        self.state.chmod(0o700)
        self.values = {
            "name": self.folder.name,
            "seed": 1,
            "state": "state",
            "study": "study.toml",
            "study_digest": self.study.digest,
            "run_signing_fingerprint": self.operator.fingerprint,
            "images": {"kind": "phantoms", "images_per_class": 8},
            "server": {"address": address, "authority": str(authority)},
        }
        self.change(**values)

    def change(self, **values: object) -> None:
        """Write SITE.toml with other values."""
        self.values |= values
        plain = {key: value for key, value in self.values.items() if not isinstance(value, dict)}
        tables = {key: value for key, value in self.values.items() if isinstance(value, dict)}
        self.settings.write_text(tomli_w.dumps(plain | tables))

    def log(self) -> str:
        """What its SuperNodes printed so far."""
        path = self.state / "flower" / "supernode.log"
        return path.read_text() if path.exists() else ""


class Joined:
    """`join` as a process of its own; what it says is kept."""

    def __init__(self, site: Hospital, **environment: str) -> None:
        self.log = site.folder / "join.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", JOIN, str(site.settings)],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **environment},
            )

    def said(self) -> str:
        """All lines so far."""
        return self.log.read_text()

    def says(self, text: str, *, times: int = 1, seconds: float = 60.0) -> None:
        """Wait until it has said `text`."""

        def heard() -> bool:
            return self.said().count(text) >= times

        eventually(lambda: heard() or self.process.poll() is not None, seconds, text)
        assert heard(), self.said()

    def end(self, seconds: float = 40.0) -> int:
        """Tell it to stop; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def __enter__(self) -> Joined:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@dataclass
class Link:
    """A stock SuperLink with TLS and node authentication, one port for everything."""

    folder: Path
    port: int

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def tls(self) -> ServerTls:
        return ServerTls(
            self.folder / "server.pem", self.folder / "server.key", self.folder / "authority.pem"
        )

    def flwr(self, *arguments: str) -> str:
        """Run `flwr ...`; what it printed."""
        ran = subprocess.run(
            [program("flwr"), *arguments],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def environment(self) -> dict[str, str]:
        """What all of Flower's processes here get."""
        return {
            **os.environ,
            "FLWR_HOME": str(self.folder / "home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        }

    def register(self, public: str) -> None:
        """Let the node of this public key in."""
        path = self.folder / "node.pub"
        path.write_text(public)
        self.flwr("supernode", "register", str(path), "link")

    def submit(self, app: Path, out: Path, seconds: float = 90.0) -> list[dict[str, object]]:
        """Run an app whose ServerApp writes what it received to `out`; that."""
        self.flwr("run", str(app), "link", "--run-config", f"out={json.dumps(str(out))}")
        eventually(out.exists, seconds, "the end of the run")
        received: list[dict[str, object]] = json.loads(out.read_text())
        return received

    def command(self) -> list[str]:
        """How it is started."""
        options = ["--host", HOST, "--port", self.port, "--ssl-ca-certfile", self.tls.authority]
        options += ["--ssl-certfile", self.tls.certificate, "--ssl-keyfile", self.tls.key]
        flags = ["--enable-supernode-auth", "--disable-runtime-dependency-installation"]
        return [program("flower-superlink"), *map(str, options), *flags]


@contextmanager
def superlink(folder: Path) -> Iterator[Link]:
    """A SuperLink, ready."""
    link = Link(folder, free_port())
    certify(link.tls)
    (folder / "home").mkdir()
    connection = {"address": link.address, "root-certificates": str(link.tls.authority)}
    config = {"superlink": {"default": "link", "link": connection}}
    (folder / "home" / "config.toml").write_text(tomli_w.dumps(config))
    log = folder / "log"
    with Children(link.environment(), log, folder / "scratch") as children:
        children.start(link.command())
        eventually(lambda: log.exists() and b"Uvicorn running" in log.read_bytes(), 60, "SuperLink")
        yield link


def certify(tls: ServerTls, *names: str) -> None:
    """An authority and the server's certificate for `names`, or for 127.0.0.1."""
    authority = Authority(tls.authority, tls.authority.with_suffix(".key"))
    create_authority(authority, "test")
    issue_certificate(tls, authority, names or [HOST])


def signed_description(site: Hospital, seconds: float = 3600) -> bytes:
    """A run description of today, signed by the operator whom the site follows."""
    description = RunDescription(
        study_digest=site.study.digest,
        run=RUN,
        recipient=OpeningKey.generate().recipient.raw.hex(),
        quorum=site.study.quorum,
        deadline=int(time.time() + seconds),
        purpose="release",
    )
    return sign_description(description, site.operator)


def hospital(
    folder: Path, link: Link | None = None, *, study: Study | None = None, **values: object
) -> Hospital:
    """A hospital that is enrolled at `link`, or whose server is away."""
    site = Hospital(folder, study or small_study(quorum=1), SigningKey.generate())
    if link is None:
        authority = Authority(folder / "authority.pem", folder / "authority.key")
        create_authority(authority, "away")
        site.settle(f"{HOST}:{free_port()}", authority.certificate, **values)
    else:
        site.settle(link.address, link.tls.authority, **values)
        link.register(site.node_public)
    return site
