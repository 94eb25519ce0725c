"""What the coordinator runs: one study at one address."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from fedcondense.config.loading import Settings, load_settings
from fedcondense.config.site import Device, ImageSource

_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_SPAN = r"^[1-9]\d{0,5} (s|min|h|d)$"


def shortest(host: str) -> str:
    """An address in its shortest form, by which certificates are compared; a name as it is."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host


Host = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9:][A-Za-z0-9.:-]{0,252}$"), AfterValidator(shortest)
]
Port = Annotated[int, Field(ge=1, le=65_535)]
Span = Annotated[str, Field(pattern=_SPAN)]


def seconds_of(span: str) -> float:
    """The length of a `Span` such as "90 min"."""
    number, unit = span.split(" ")
    return int(number) * _SECONDS[unit]


class Address(Settings):
    """Where sites find the server, and where its own processes find each other.

    Only the public port is for others. The other two are bound to 127.0.0.1, and whoever has an
    account on this machine can use them: the server needs a machine of its own.
    """

    names: tuple[Host, ...] = Field(
        min_length=1, max_length=50, description="every name and address that sites use"
    )
    listen: Host = Field("0.0.0.0", description="address that the public port is bound to")
    port: Port = Field(8444, description="the one port that sites connect to")
    admin_port: Port = Field(8445, description="of 127.0.0.1: Flower's own processes")
    health_port: Port = Field(8446, description="of 127.0.0.1: the gRPC health service")

    @property
    def shown(self) -> str:
        """Host and port as a site writes them into `server.address`."""
        host = self.names[0]
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def nearest(self) -> str:
        """The address by which this machine itself reaches the public port."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.listen, self.listen)

    @model_validator(mode="after")
    def _fits_together(self) -> Address:
        if len({self.port, self.admin_port, self.health_port}) < 3:
            raise ValueError("address: port, admin_port and health_port differ")
        for host in (*self.names, self.listen):
            if ":" in host and not _is_address(host):
                raise ValueError(f"address: {host} is no name or address; a port stands in `port`")
        return self


class Tls(Settings):
    """The server's certificate; `init` makes one, a consortium's own authority may."""

    certificate: Path = Field(Path("keys/server.pem"), description="of the public port, PEM")
    key: Path = Field(Path("keys/server.key"), description="its key, mode 0600")
    authority: Path = Field(
        Path("keys/authority.pem"), description="what sites trust: their only root certificate"
    )


class Timing(Settings):
    """How long a run waits; a span is a whole number, a space, and s, min, h or d."""

    deadline: Span = Field(
        "72 h",
        description="after the start of a run, and of each further round: who has not contributed "
        "then is missing",
    )
    joining: Span = Field(
        "30 min",
        description="so long a run waits for a quorum to be online before it asks anybody",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Timing:
        if seconds_of(self.joining) > seconds_of(self.deadline):
            raise ValueError("time: joining is not longer than deadline")
        return self


class ServerLimits(Settings):
    """What the server takes in; no contribution can raise them, and none is ever above 64 MiB."""

    attempts: int = Field(
        5,
        ge=1,
        le=100,
        description="refused contributions of a site and round, then no more; "
        "a site uploads at most 128 MiB for each in a round",
    )
    stored_megabytes: int = Field(
        2048, ge=1, le=1_000_000, description="MiB of sealed contributions in one run"
    )
    request_megabytes: int = Field(
        16, ge=6, le=64, description="MiB of one HTTP request; Flower sends arrays in pieces of 5"
    )


class ServerConfig(Settings):
    """The coordinator's settings; paths are relative to the folder of the file."""

    study: Path = Field(Path("STUDY.toml"), description="what all sites agreed on")
    address: Address = Field(description="where sites find the server")
    evaluation: ImageSource = Field(
        description="images that the global synthetic set is scored on, and never trained on"
    )
    tls: Tls = Field(Tls(), description="the server's certificate")
    time: Timing = Field(Timing(), description="how long a run waits")
    limits: ServerLimits = Field(ServerLimits(), description="what the server takes in")
    runs: Path = Field(Path("runs"), description="where the directories of runs are")
    keys: Path = Field(
        Path("keys"), description="folder of the run-signing key and of each run's opening key"
    )
    enrolled: Path = Field(Path("enrolled"), description="folder of the enrolled sites' requests")
    revoked: Path = Field(
        Path("revoked.jsonl"), description="the keys that never come back; only ever added to"
    )
    threads: int = Field(1, ge=1, le=256, description="processes that evaluate, one core each")
    device: Device = Field("cpu", description="`auto` takes the first CUDA device, or the CPU")

    @model_validator(mode="after")
    def _apart(self) -> ServerConfig:
        if problems := "; ".join(self._contradictions()):
            raise ValueError(problems)
        return self

    def _contradictions(self) -> Iterator[str]:
        inside = [key for key in ("keys", "enrolled", "revoked") if self.runs in _at(self, key)]
        for key in inside:
            yield f"{key}: not inside runs, which others may be given to read"

    @property
    def run_signing_key(self) -> Path:
        """The key that signs run descriptions; its fingerprint is what sites pin."""
        return self.keys / "run-signing.key"

    def opening_key(self, run: str) -> Path:
        """The key that the contributions of one run are sealed to, while the run lasts."""
        return self.keys / f"opening-{run}.key"


def load_server(path: Path) -> ServerConfig:
    """Read a SERVER.toml.

    Raises:
        SettingsError: a key is wrong.
    """
    return load_settings(ServerConfig, path)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _at(config: ServerConfig, key: str) -> tuple[Path, ...]:
    path: Path = getattr(config, key)
    return (path, *path.parents)
