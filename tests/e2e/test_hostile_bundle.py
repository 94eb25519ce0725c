"""No code of a server runs at a site, whatever its bundle says; a stock SuperNode runs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from flwr.common.constant import ErrorCode
from hostile_kit import App, hostile_app
from joined_kit import (
    HOST,
    Hospital,
    Joined,
    Link,
    eventually,
    hospital,
    signed_description,
    superlink,
)

from fedcondense.exchange.node_key import NodeKey
from fedcondense.flower.messages import HELLO
from fedcondense.flower.processes import Children, free_port, program

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),
]
OURS, OTHER = "fedcondense", "elsewhere"
PATIENT = "Jane Doe"


@dataclass
class Siege:
    """A server with one of our sites and one stock SuperNode, and where code leaves its marks."""

    link: Link
    site: Hospital
    joined: Joined
    marks: Path
    apps: dict[str, App]

    def marked(self, home: Path) -> bool:
        """Whether code ran in a process that had this FLWR_HOME."""
        return (self.marks / str(home).replace("/", "_")).exists()

    def ran_here(self) -> bool:
        """Whether code was unpacked or run at our site."""
        home = self.site.state / "flower" / "home"
        return self.marked(home) or any(home.rglob("*.py"))

    def reply_of_ours(self, variant: str) -> dict[str, object]:
        """What the hostile server received from our site; the stock one answers as it likes."""
        app = self.apps[variant]
        replies = self.link.submit(app.folder, self.link.folder / f"{variant}.json")
        (reply,) = [reply for reply in replies if "hostile" not in reply]
        return reply


@pytest.fixture(scope="module")
def siege(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siege]:
    root = tmp_path_factory.mktemp("siege")
    marks = root / "marks"
    marks.mkdir()
    with superlink(root / "link") as link:
        site = hospital(root / PATIENT / "lakeside", link)
        description = signed_description(site)
        apps = {
            variant: hostile_app(
                root / variant,
                name=name,
                marks=marks,
                description=description if variant != "unlisted" else description + b" ",
                nodes=2,
                kind=HELLO,
            )
            for variant, name in (("listed", OURS), ("other-id", OTHER), ("unlisted", OURS))
        }
        site.change(bundles=[apps["listed"].digest, apps["other-id"].digest])
        with Joined(site) as joined, stock_supernode(root / "stock", link):
            joined.says("connected")
            yield Siege(link, site, joined, marks, apps)


@contextmanager
def stock_supernode(folder: Path, link: Link) -> Iterator[None]:
    """A SuperNode as Flower's documentation starts it, enrolled at the same server."""
    folder.mkdir()
    key = NodeKey.generate()
    key.save(folder / "node.key")
    link.register(key.public)
    environment = {**link.environment(), "FLWR_HOME": str(folder / "home")}
    children = Children(environment, folder / "log", folder / "scratch")
    options = {
        "--superlink": link.address,
        "--root-certificates": str(link.tls.authority),
        "--auth-supernode-private-key": str(folder / "node.key"),
        "--host": HOST,
        "--port": str(free_port()),
    }
    with children:
        parts = [part for pair in options.items() for part in pair]
        children.start([program("flower-supernode"), *parts])
        yield


def test_a_listed_bundle_with_our_id_is_answered_by_the_installed_package(siege: Siege) -> None:
    reply = siege.reply_of_ours("listed")

    assert reply["reply"]["outcome"] == "ready"
    assert not siege.ran_here()


def test_a_listed_bundle_with_another_id_is_refused(siege: Siege) -> None:
    reply = siege.reply_of_ours("other-id")

    assert reply["error"] == ErrorCode.LOAD_CLIENT_APP_EXCEPTION
    assert str(siege.site.folder) not in str(reply["reason"])
    assert not siege.ran_here()


def test_an_unlisted_bundle_with_our_id_is_refused(siege: Siege) -> None:
    reply = siege.reply_of_ours("unlisted")

    assert reply["error"] == ErrorCode.LOAD_CLIENT_APP_EXCEPTION
    assert not siege.ran_here()
    digest = siege.apps["unlisted"].digest
    eventually(lambda: f"bundle refused: its digest {digest}" in siege.site.log(), 10, "a line")


def test_a_stock_supernode_runs_what_it_is_sent_so_these_tests_can_fail(siege: Siege) -> None:
    assert siege.marked(siege.link.folder.parent / "stock" / "home")
    assert len(list(siege.marks.iterdir())) == 1


def test_a_patients_name_in_every_path_of_the_site_is_in_no_log_and_nothing_at_the_server(
    siege: Siege,
) -> None:
    assert PATIENT in str(siege.site.folder)
    assert PATIENT not in siege.joined.said() + siege.site.log()
    for path in siege.link.folder.rglob("*"):
        assert not path.is_file() or PATIENT.encode() not in path.read_bytes()
