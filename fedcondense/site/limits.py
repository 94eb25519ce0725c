"""What a site answers at most, whatever was asked: looked at before any image is.

Requests are counted on disk, so that neither a restart nor another run of the same study gives a
server more of them.
"""

from __future__ import annotations

from fedcondense.config.site import SiteConfig, SiteLimits
from fedcondense.config.study import Study
from fedcondense.errors import DescriptionRejected, LimitExceeded
from fedcondense.files.lock import locked
from fedcondense.files.storage import read_json, write_json

CLOCKS = 300.0  # seconds; Flower refuses nodes whose clock is further behind
MEGABYTE = 1_000_000  # bytes


def check_message(limits: SiteLimits, kind: str, size: int) -> None:
    """Look at a message's type and its size in bytes.

    Raises:
        LimitExceeded: the site does not answer this type, or messages of this size.
    """
    if kind not in limits.messages:
        raise _exceeded("messages", "the server sent a type of message that is not answered")
    if size > limits.max_megabytes_in * MEGABYTE:
        raise _exceeded("max_megabytes_in", f"the server sent {size / MEGABYTE:.1f} MB")


def check_deadline(deadline: int, now: float) -> None:
    """Look at how late it is, both in seconds since 1970 UTC.

    Raises:
        DescriptionRejected: the run was over before it asked.
    """
    if now > deadline + CLOCKS:
        raise DescriptionRejected(
            "the deadline of the run that asks is over",
            hint="compare this machine's clock; the server's operator can give the run more time",
        )


def check_study(limits: SiteLimits, study: Study, round_number: int) -> None:
    """Look at what a study asks of one round.

    Raises:
        LimitExceeded: it is more than the site allows.
    """
    images = study.largest_set
    if images > limits.max_synthetic_images:
        raise _exceeded("max_synthetic_images", f"the study asks for {images} synthetic images")
    if study.rounds > limits.max_rounds:
        raise _exceeded("max_rounds", f"the study has {study.rounds} rounds")
    if round_number > study.rounds:
        raise LimitExceeded(
            f"this would be round {round_number} of {study.rounds}",
            hint="the server asks for more than all sites agreed on; ask its operator",
        )


def count_request(site: SiteConfig, study: Study, round_number: int) -> int:
    """Count one more request for a contribution to a round; how many there were.

    Raises:
        LimitExceeded: there were as many as the site answers.
    """
    path = site.state / "requests" / f"{study.digest}.json"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(path.with_suffix(".lock")):
        counts: dict[str, int] = read_json(path) if path.exists() else {}
        count = counts.get(str(round_number), 0) + 1
        if count > site.limits.max_requests_per_round:
            raise _exceeded("max_requests_per_round", f"this would be request {count} of its round")
        write_json(path, {**counts, str(round_number): count})
    return count


def _exceeded(key: str, what: str) -> LimitExceeded:
    return LimitExceeded(what, hint=f"limits.{key} of site.toml allows no more")
