"""`check`, at the site itself: settings, study, keys, images, disk, memory, device.

Each line says what is in order, or what is not and what to do. The hops to the server are in
`flower.hops`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from fedcondense.config.privacy import FormalPrivacy
from fedcondense.config.site import SiteConfig, load_site
from fedcondense.config.study import Study
from fedcondense.errors import FedcondenseError
from fedcondense.exchange.keys import SigningKey
from fedcondense.exchange.node_key import NodeKey
from fedcondense.files.storage import nearest_existing
from fedcondense.site.free_memory import available_memory
from fedcondense.site.readiness import (
    officer_of,
    pinned_fingerprint,
    private_folder,
    releasable_study,
)

GIGABYTE = 1e9  # bytes
LEAST_DISK = 5.0  # gigabytes: cached images and checkpoints
LEAST_MEMORY = 3.0  # gigabytes: torch alone takes one
OPACUS_HINT = "pip install 'opacus>=1.6,<2'"
FIRST_PERSON = 1000  # user ids below it are those of services


class Verdict(StrEnum):
    """What became of one check; a note is in order, and worth knowing."""

    OK = "ok"
    NOTE = "note"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """One line of `check`: what was looked at, what was found, and what to do about it."""

    what: str
    verdict: Verdict
    text: str
    hint: str = ""
    code: str = ""  # of the error that it is, see docs/ref-errors.md


Survey = Callable[[SiteConfig, Study], Iterable[Finding]]


def check_site(path: Path, *, surveys: Mapping[str, Survey] | None = None) -> Iterator[Finding]:
    """Look at everything that needs no network, in the order in which it is mended.

    Args:
        path: the SITE.toml.
        surveys: what looks at budget and images, once settings and study are in order; by the name
            that an error of it goes by.
    """
    try:
        site = load_site(path)
    except FedcondenseError as error:
        yield failed("settings", error)
        return
    yield Finding("settings", Verdict.OK, f"site {site.name}")
    study = None
    try:
        study = releasable_study(site)
        yield Finding("study", Verdict.OK, f"{_shown(study)}; digest {study.digest}")
    except FedcondenseError as error:
        yield failed("study", error)
    for what, look in _CHECKS.items():
        yield from _checked(what, look, site)
    if study is not None:
        yield from _software(study)
        for what, survey in (surveys or {}).items():
            yield from _surveyed(what, site, study, survey)


def failed(what: str, error: FedcondenseError) -> Finding:
    """An error as the line of a check."""
    return Finding(what, Verdict.FAILED, error.message, error.hint, error.code)


def _surveyed(what: str, site: SiteConfig, study: Study, survey: Survey) -> Iterator[Finding]:
    try:
        yield from survey(site, study)
    except FedcondenseError as error:
        yield failed(what, error)


def _software(study: Study) -> Iterator[Finding]:
    """What only some studies need; whether images do is told with them."""
    if not isinstance(study.privacy, FormalPrivacy):
        return
    if importlib.util.find_spec("opacus") is None:
        text = "the study's privacy needs Opacus, which is not installed"
        yield Finding("software", Verdict.FAILED, text, OPACUS_HINT)
    else:
        yield Finding(
            "software", Verdict.OK, "Opacus is installed, which the study's privacy needs"
        )


def _checked(
    what: str, look: Callable[[SiteConfig], Finding | str | None], site: SiteConfig
) -> Iterator[Finding]:
    try:
        found = look(site)
    except FedcondenseError as error:
        yield failed(what, error)
        return
    if isinstance(found, str):
        yield Finding(what, Verdict.OK, found)
    elif found is not None:
        yield found


def _shown(study: Study) -> str:
    return (
        f"{study.name}: {study.distill.method}, {len(study.classes)} classes of "
        f"{study.images_per_class} synthetic images, quorum {study.quorum}, "
        f"privacy {study.privacy.mode}"
    )


def _signing(site: SiteConfig) -> str:
    return f"fingerprint {SigningKey.load(site.signing_key).fingerprint}"


def _node(site: SiteConfig) -> str:
    return f"fingerprint {NodeKey.load(site.node_key).fingerprint}"


def _pinned(site: SiteConfig) -> str:
    return f"fingerprint {pinned_fingerprint(site)}"


def _officer(site: SiteConfig) -> str | None:
    fingerprint = officer_of(site)
    return f"must approve; fingerprint {fingerprint}" if fingerprint else None


def _state(site: SiteConfig) -> str:
    return f"{private_folder(site.state)}, for this user alone"


def _disk(site: SiteConfig) -> Finding:
    free = shutil.disk_usage(nearest_existing(site.state)).free / GIGABYTE
    text = f"{free:.1f} GB free for the state directory"
    if free < LEAST_DISK:
        hint = f"{LEAST_DISK:.0f} GB hold a cache of images and checkpoints"
        return Finding("disk", Verdict.FAILED, text, hint)
    return Finding("disk", Verdict.OK, text)


def _memory(site: SiteConfig) -> Finding:
    free = available_memory()
    if free is None:
        return Finding("memory", Verdict.NOTE, "this system does not say how much is free")
    text = f"{free / GIGABYTE:.1f} GB free"
    if free < LEAST_MEMORY * GIGABYTE:
        hint = f"end other programs: condensing needs {LEAST_MEMORY:.0f} GB or more"
        return Finding("memory", Verdict.FAILED, text, hint)
    return Finding("memory", Verdict.OK, text)


def _device(site: SiteConfig) -> Finding:
    if site.device == "cpu":
        return Finding("device", Verdict.OK, f"CPU, {site.threads} threads")
    import torch  # seconds; only where a GPU is asked for

    number = int(site.device.partition(":")[2] or 0)
    if torch.cuda.is_available() and number < torch.cuda.device_count():
        memory = torch.cuda.get_device_properties(number).total_memory / GIGABYTE
        name = torch.cuda.get_device_name(number)
        return Finding("device", Verdict.OK, f"{name}, {memory:.0f} GB")
    if site.device == "auto":
        return Finding("device", Verdict.NOTE, "no CUDA device here, so the CPU")
    return Finding(
        "device",
        Verdict.FAILED,
        f"{site.device} is not there",
        'see nvidia-smi, or set device = "auto"',
    )


def _others(site: SiteConfig) -> Finding:
    people = others_here()
    if people:
        text = f"processes of {people} other people run on this machine"
        hint = "they can reach Flower's local ports: the site needs a machine of its own"
        return Finding("machine", Verdict.NOTE, text, hint)
    return Finding("machine", Verdict.OK, "no other people's processes")


_CHECKS: dict[str, Callable[[SiteConfig], Finding | str | None]] = {
    "run-signing key": _pinned,
    "signing key": _signing,
    "node key": _node,
    "data officer": _officer,
    "state": _state,
    "disk": _disk,
    "memory": _memory,
    "device": _device,
    "machine": _others,
}


def others_here(processes: Path = Path("/proc")) -> int:
    """How many other people, not services, have processes on this machine."""
    owners = set()
    for folder in processes.glob("[0-9]*"):
        try:
            owners.add(folder.stat().st_uid)
        except OSError:  # it has just ended
            continue
    return len({owner for owner in owners if owner >= FIRST_PERSON} - {os.getuid()})
