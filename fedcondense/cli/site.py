"""`fedcondense-site`: what a hospital runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fedcondense.cli.terminal import (
    ALLOCATOR,
    escape_unprintable,
    heed_stop,
    operator_errors,
    watch_on_terminal,
)

if TYPE_CHECKING:
    from fedcondense.config.site import SiteConfig
    from fedcondense.config.study import Study
    from fedcondense.flower.site_status import RoundKept, SiteStatus
    from fedcondense.site.doctor import Finding

PROGRAM = "fedcondense-site"
FIRST_ROUND = 1
COMPUTING = frozenset({"preview", "join"})

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
# readable=False: what cannot be read is told with a code, not in a box of Typer's
SiteFile = Annotated[
    Path,
    typer.Argument(
        metavar="SITE.toml", readable=False, help="the site's settings, as `init` wrote them"
    ),
]


@app.command()
def init(
    site: Annotated[
        Path,
        typer.Argument(
            metavar="SITE.toml", readable=False, help="where the settings are, or will be"
        ),
    ],
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="the site's name; its folder's if left out")
    ] = None,
    officer: Annotated[
        Path | None,
        typer.Argument(metavar="OFFICER_KEY", help="the data officer's key, if there is one"),
    ] = None,
) -> None:
    """Make settings, keys and the enrolment request; print the fingerprints.

    What is there already stays as it is.
    """
    with operator_errors(PROGRAM):
        _init(site, name, officer)


@app.command()
def check(site: SiteFile) -> None:
    """Look at everything that could go wrong, down to the server; name the first broken hop."""
    with operator_errors(PROGRAM):
        _check(site)


@app.command()
def preview(
    site: SiteFile,
    round: Annotated[
        int | None,
        typer.Argument(metavar="ROUND", min=1, help="the round; the newest one if left out"),
    ] = None,
) -> None:
    """Do everything that `join` does, and send nothing.

    Condenses, audits and writes the page that the data officer reads. `join` later sends exactly
    this set. After a refusal the same command tries another set, as often as the site allows.
    """
    with operator_errors(PROGRAM):
        _preview(*_agreed(site), round)


@app.command()
def approve(
    site: SiteFile,
    round: Annotated[int, typer.Argument(metavar="ROUND", min=1, help="the round, from 1")],
) -> None:
    """Sign what would leave, with the data officer's own key."""
    with operator_errors(PROGRAM):
        _approve(*_agreed(site), round)


@app.command()
def join(site: SiteFile) -> None:
    """Take part in the study until it is over; outlives restarts of the server."""
    with operator_errors(PROGRAM):
        from fedcondense.flower.supernode import join as join_study

        join_study(site, tell=_line)


@app.command()
def status(site: SiteFile) -> None:
    """Show whether the site takes part and what it answered; exit code 0 only if it does."""
    with operator_errors(PROGRAM):
        from fedcondense.config.site import load_site
        from fedcondense.flower.site_status import site_status

        _show_status(site_status(load_site(site)))


@app.command()
def budget(site: SiteFile) -> None:
    """Show what was spent, on what, what is left, and what the planned study would cost."""
    with operator_errors(PROGRAM):
        _budget(*_agreed(site))


def main() -> None:
    """Entry point of the command."""
    escape_unprintable()
    heed_stop()
    _keep_large_tensors()
    app()


def _keep_large_tensors() -> None:
    """Begin anew with the allocator's settings: it reads them when a process starts."""
    computes = len(sys.argv) > 1 and sys.argv[1] in COMPUTING
    if computes and not ALLOCATOR.keys() <= os.environ.keys():
        os.environ.update(ALLOCATOR)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _agreed(path: Path) -> tuple[SiteConfig, Study]:
    from fedcondense.config.site import load_site
    from fedcondense.site.readiness import agreed_study

    site = load_site(path)
    return site, agreed_study(site)


def _line(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _init(path: Path, name: str | None, officer: Path | None) -> None:
    from fedcondense.site.enrolment import init_site

    made = init_site(path, name, officer)
    console = Console()
    console.print(f"site {made.name}: {made.settings}", soft_wrap=True, highlight=False)
    for what, fingerprint in (
        ("signing key", made.signing),
        ("node key", made.node),
        ("data officer", made.officer),
    ):
        if fingerprint is not None:
            console.print(f"{what}: {fingerprint}", soft_wrap=True, highlight=False)
    console.print(
        f"Send {made.request} to the server operator, and read the fingerprints out to them by "
        "telephone.",
        soft_wrap=True,
        highlight=False,
    )


def _check(path: Path) -> None:
    from fedcondense.config.site import load_site
    from fedcondense.data.problems import naming_files
    from fedcondense.flower.hops import check_hops
    from fedcondense.site.doctor import check_site
    from fedcondense.site.payment import payment

    def survey(site: SiteConfig, study: Study) -> Iterable[Finding]:
        from fedcondense.site.image_survey import survey_images  # torch takes seconds

        with watch_on_terminal() as watch, naming_files():
            return list(survey_images(site, study, watch=watch))

    healthy = _tell(check_site(path, surveys={"budget": payment, "images": survey}))
    if not (_tell(check_hops(load_site(path))) and healthy):
        sys.exit(1)


def _tell(findings: Iterable[Finding]) -> bool:
    """Print each finding as it comes; whether none failed."""
    healthy = True
    for finding in findings:
        code = f" ({finding.code})" if finding.code else ""
        hint = f"\n        {finding.hint}" if finding.hint else ""
        print(f"{finding.verdict:<7} {finding.what}: {finding.text}{code}{hint}", flush=True)  # noqa: T201
        healthy = healthy and finding.verdict != "failed"
    return healthy


def _preview(site: SiteConfig, study: Study, asked: int | None) -> None:
    import torch

    from fedcondense.cli.budget import planned_lines
    from fedcondense.data.problems import naming_files
    from fedcondense.errors import ReleaseRefused
    from fedcondense.site.contribute import preview as preview_round
    from fedcondense.site.global_set import newest_round
    from fedcondense.site.limits import check_study
    from fedcondense.site.officer import is_approved_here
    from fedcondense.site.plan import planned_mechanisms
    from fedcondense.site.state import RoundState

    torch.set_num_threads(site.threads)
    number = asked or newest_round(site, study)
    check_study(site.limits, study, number)
    state = RoundState(site.state, study.digest, number)
    console = Console()
    if not state.has_passed():
        for line in planned_lines(study, planned_mechanisms(site, study)):
            _line(line)
    try:
        with watch_on_terminal() as watch, naming_files():
            released = preview_round(site, study, round=number, watch=watch)
    except ReleaseRefused:
        console.print(f"The gate refused. The page says why: {state.page}", soft_wrap=True)
        raise
    console.print(
        f"The gate lets this set pass; nothing was sent. Read: {state.page}", soft_wrap=True
    )
    if is_approved_here(site, state, released.payload.sha256):
        console.print("The data officer has signed it; `join` sends it.")
    elif site.release.needs_approval:
        console.print(
            "It leaves once the data officer has signed: "
            f"fedcondense-site approve SITE.toml {number}"
        )


def _approve(site: SiteConfig, study: Study, round: int) -> None:
    from fedcondense.errors import ApprovalMissing
    from fedcondense.privacy.record_page import grouped
    from fedcondense.site.local_page import write_page_again
    from fedcondense.site.officer import approve_payload
    from fedcondense.site.state import RoundState

    state = RoundState(site.state, study.digest, round)
    record = state.record() if state.has_record() else None
    if record is None or record["verdict"] != "passed":
        raise ApprovalMissing(
            f"round {round} has no set that the gate lets pass",
            hint="fedcondense-site preview SITE.toml condenses one",
        )
    approval = approve_payload(site, state, record["payload_sha256"])
    page = write_page_again(site, study, state)
    console = Console()
    signed, by = grouped(record["payload_sha256"]), grouped(approval.fingerprint)
    console.print(f"payload {signed}", soft_wrap=True, highlight=False)
    console.print(f"approved by {by}", soft_wrap=True, highlight=False)
    console.print(f"The page that this stands for: {page}", soft_wrap=True)


def _budget(site: SiteConfig, study: Study) -> None:
    from fedcondense.cli.budget import show_plan, show_spent
    from fedcondense.site.plan import access_of, planned_mechanisms, rounds_to_come
    from fedcondense.site.receipts import trusted_ledger
    from fedcondense.site.state import RoundState

    ledger = trusted_ledger(site)
    show_spent(ledger.view())  # whatever becomes of the plan
    rounds = max(1, rounds_to_come(study, ledger.rows()))  # none to come: another set of it
    planned = planned_mechanisms(site, study)
    state = RoundState(site.state, study.digest, FIRST_ROUND)
    is_paid = state.finished() and not state.refusals()
    view = ledger.view(planned * rounds, access_of(study, FIRST_ROUND))
    show_plan(view, study, planned, is_paid=is_paid)


def _score_of(kept: RoundKept) -> str:
    """What the server told of the round's global set, where it did."""
    if "balanced_accuracy" not in kept.scores:
        return ""
    score = kept.scores["balanced_accuracy"]
    mean, low, high = (float(score[name]) for name in ("mean", "low", "high"))
    sent = "" if kept.has_set else ", too large to be sent"
    return f"; its global set{sent}: balanced accuracy {mean:.3f} ({low:.3f} to {high:.3f})"


def _stage_of(kept: RoundKept) -> str:
    """How far the round's set is."""
    if kept.condensed:
        return "condensed"
    if kept.reached is None:
        return "not condensed"
    return f"not condensed yet, {kept.reached.stage} {kept.reached.done}/{kept.reached.total}"


def _show_status(found: SiteStatus) -> None:
    console = Console()
    state = "not running" if found.join is None or not found.supervised else found.join.state.value
    console.print(f"site {found.site}: {state}, {'serving' if found.serving else 'not serving'}")
    if found.join is not None:
        console.print(f"connected: {'yes' if found.join.connected else 'no'}")
        console.print(f"restarts: {found.join.restarts}")
    if found.last is not None:
        code = f" {found.last.code}" if found.last.code else ""
        console.print(f"last request: {found.last.kind}, answered {found.last.outcome}{code}")
    for kept in found.rounds:
        console.print(
            f"round {kept.round} of study {kept.study_digest[:8]}: {_stage_of(kept)}, "
            f"sealed {kept.sealed}{_score_of(kept)}",
            soft_wrap=True,
            highlight=False,
        )
    console.print(f"signing key: {found.signing}", soft_wrap=True, highlight=False)
    console.print(f"node key: {found.node}", soft_wrap=True, highlight=False)
    if not found.healthy:
        sys.exit(1)
