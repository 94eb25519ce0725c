"""What a real SuperLink shows by its public port: Fleet API and health, for enrolled nodes."""

from __future__ import annotations

import contextlib
import http.client
import ssl
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from deployment_kit import Consortium, make_consortium, wait_for
from enrolment_kit import NOW, Applicant
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.control_pb2 import ListNodesRequest, StartRunRequest
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, RegisterNodeFleetRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now

from fedcondense.exchange.node_key import node_key_pem
from fedcondense.flower.control import https_status
from fedcondense.flower.health import is_serving
from fedcondense.flower.superlink import Running, SuperLink
from fedcondense.server.current_run import begin_run, study_of
from fedcondense.server.enrolment import admit

pytestmark = pytest.mark.e2e


@dataclass(frozen=True)
class Client:
    """Whoever reaches the public port and trusts the authority; with a key, a node."""

    consortium: Consortium
    key: Applicant | None = None

    def status(self, path: str, message: Any = None, method: str = "POST") -> int:
        config = self.consortium.office.config
        context = ssl.create_default_context(cafile=config.tls.authority)
        connection = http.client.HTTPSConnection(
            "127.0.0.1", config.address.port, timeout=20, context=context
        )
        body = b"" if message is None else message.SerializeToString()
        headers = {"content-type": "application/protobuf", "accept": "application/protobuf"}
        with contextlib.closing(connection):
            connection.request(method, path, body, headers | self._signed())
            return connection.getresponse().status

    def _signed(self) -> dict[str, str]:
        """What a SuperNode signs: the time."""
        if self.key is None:
            return {}
        path = self.consortium.office.folder / f"{self.key.name}.node"
        if not path.exists():
            self.key.node.save(path)
        private = load_ssh_private_key(path.read_bytes(), None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        stamp = now().isoformat()
        signature = private.sign(stamp.encode("ascii"), ec.ECDSA(hashes.SHA256()))
        return {
            FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(node_key_pem(self.key.node.public)).decode(),
            FLEET_HTTP_SIGNATURE_HEADER: b64encode(signature).decode(),
            TIMESTAMP_HEADER: stamp,
        }

    def activates(self) -> int:
        assert self.key is not None
        request = ActivateNodeRequest(
            public_key=node_key_pem(self.key.node.public), heartbeat_interval=30.0
        )
        return self.status("/v1/fleet/activate-node", request)


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return make_consortium(tmp_path_factory.mktemp("door"), sites=2)


@pytest.fixture(scope="module")
def superlink(consortium: Consortium) -> SuperLink:
    config = consortium.office.config
    current = begin_run(config, study_of(config), now=time.time())
    return SuperLink(config, current.run)


@pytest.fixture(scope="module")
def flower(consortium: Consortium, superlink: SuperLink) -> Iterator[Running]:
    """A SuperLink with its door still shut."""
    with superlink.running() as running:
        admit(superlink.run, consortium.office.register.active(now=NOW))
        running.enrol(consortium.office.register.active(now=NOW))
        yield running


def test_before_it_is_ready_the_public_port_asks_to_come_again(
    flower: Running, consortium: Consortium
) -> None:
    site = Client(consortium, consortium.sites["site-1"].keys)

    assert site.status("/health", method="GET") == 503
    assert site.activates() == 503
    assert is_serving(consortium.office.config.address.health_port)

    flower.open()

    assert site.status("/health", method="GET") == 200


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1/control/start-run", StartRunRequest()),
        ("/v1/control/list-nodes", ListNodesRequest()),
        ("/v1/control/register-node", None),
        ("/v1/runtime/acquire-task", AcquireTaskRequest()),
        ("/v1/runtime/pull-task-input", None),
        ("/v1/runtime/responses", None),
    ],
)
def test_whoever_trusts_the_authority_can_neither_start_a_run_nor_take_a_task(
    flower: Running, consortium: Consortium, path: str, message: Any
) -> None:
    flower.open()

    assert Client(consortium).status(path, message) == 404
    assert Client(consortium, consortium.sites["site-1"].keys).status(path, message) == 404
    assert flower.link.control.runs() == {}


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/", "/metrics", "/v1/fleet/../docs"])
def test_no_other_page_is_shown(flower: Running, consortium: Consortium, path: str) -> None:
    flower.open()

    assert Client(consortium).status(path, method="GET") == 404


def test_the_fleet_api_answers_enrolled_nodes_alone(
    flower: Running, consortium: Consortium
) -> None:
    flower.open()
    stranger = Client(consortium, Applicant("stranger"))
    pull = PullMessagesRequest(node=Node(node_id=1))

    assert Client(consortium).status("/v1/fleet/pull-messages", pull) == 401
    assert stranger.status("/v1/fleet/pull-messages", pull) == 401
    assert stranger.activates() == 412
    key = node_key_pem(stranger.key.node.public) if stranger.key else b""
    register = RegisterNodeFleetRequest(public_key=key)
    assert stranger.status("/v1/fleet/register-node", register) not in (200, 401)
    assert Client(consortium, consortium.sites["site-1"].keys).activates() == 200


def test_a_node_cannot_speak_with_anothers_number(flower: Running, consortium: Consortium) -> None:
    flower.open()
    nodes = flower.enrol(consortium.office.register.active(now=NOW))
    thief = Client(consortium, consortium.sites["site-1"].keys)

    own = PullMessagesRequest(node=Node(node_id=nodes["site-1"]))
    others = PullMessagesRequest(node=Node(node_id=nodes["site-2"]))

    assert thief.status("/v1/fleet/pull-messages", own) == 200
    assert thief.status("/v1/fleet/pull-messages", others) == 401


def test_a_body_beyond_the_limit_is_refused(flower: Running, consortium: Consortium) -> None:
    flower.open()

    class Huge:
        def SerializeToString(self) -> bytes:
            return bytes(16 * 2**20 + 1)

    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it does not read on
        assert Client(consortium).status("/v1/fleet/push-object", Huge()) == 413


def test_another_authority_is_not_trusted_with_this_port(
    flower: Running, consortium: Consortium, tmp_path: Path
) -> None:
    flower.open()
    other = make_consortium(tmp_path / "other", sites=0).office.config.tls.authority
    port = consortium.office.config.address.port

    assert https_status("127.0.0.1", port, other) is None


def test_a_revoked_node_is_refused_also_after_a_restart(
    flower: Running, superlink: SuperLink, consortium: Consortium
) -> None:
    flower.open()
    revoked = Client(consortium, consortium.sites["site-2"].keys)
    assert revoked.activates() == 200

    consortium.office.register.revoke("site-2", now=NOW)
    flower.enrol(consortium.office.register.active(now=NOW))

    assert revoked.activates() == 412
    flower.child.kill()
    wait_for(lambda: not flower.is_alive())
    flower.children.__exit__()
    with superlink.running() as again:
        again.enrol(consortium.office.register.active(now=NOW))
        again.open()
        assert revoked.activates() == 412
        assert Client(consortium, consortium.sites["site-1"].keys).activates() in (200, 412)
        assert revoked.status("/v1/fleet/pull-messages", PullMessagesRequest()) == 401
