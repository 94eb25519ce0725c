"""`fedcondense-server`: what the coordinator of a study runs."""

from __future__ import annotations

import logging
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedcondense.cli.terminal import (
    escape_unprintable,
    heed_stop,
    operator_errors,
    watch_on_terminal,
)

if TYPE_CHECKING:
    from fedcondense.config.server import ServerConfig
    from fedcondense.exchange.enrolment_request import EnrolmentRequest
    from fedcondense.flower.server_status import RunStatus, ServerStatus, SiteStatus
    from fedcondense.server.current_run import CurrentRun

PROGRAM = "fedcondense-server"

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
# readable=False: what cannot be read is told with a code, not in a box of Typer's
ServerFile = Annotated[
    Path,
    typer.Argument(
        metavar="SERVER.toml", readable=False, help="the server's settings, as `init` wrote them"
    ),
]


@app.command()
def init(
    server: Annotated[
        Path,
        typer.Argument(
            metavar="SERVER.toml", readable=False, help="where the settings are, or will be"
        ),
    ],
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="name or address that sites use; this machine's own"),
    ] = None,
) -> None:
    """Make settings, study, keys and certificate; print what sites pin.

    What is there already stays as it is, so the same command also renews a certificate whose two
    files were moved away.
    """
    with operator_errors(PROGRAM):
        _init(server, name or socket.getfqdn())


@app.command()
def enroll(
    server: ServerFile,
    request: Annotated[
        Path,
        typer.Argument(
            metavar="REQUEST", readable=False, help="the file that the site's `init` wrote"
        ),
    ],
) -> None:
    """Let a site take part, once its fingerprints were compared by voice or on paper."""
    with operator_errors(PROGRAM):
        _enroll(server, request)


@app.command()
def revoke(
    server: ServerFile,
    site: Annotated[str, typer.Argument(metavar="SITE", help="the name of an enrolled site")],
) -> None:
    """Refuse all keys of a site from now on, for good."""
    with operator_errors(PROGRAM):
        _revoke(server, site)


@app.command()
def run(server: ServerFile) -> None:
    """Play the study to its end; given again, it goes on where it was."""
    with operator_errors(PROGRAM):
        _run(server)


@app.command()
def status(server: ServerFile) -> None:
    """Show sites, round, deadline and disk; exit 0 if nobody has to look at it."""
    with operator_errors(PROGRAM):
        well = _status(server)
    sys.exit(0 if well else 1)


@app.command()
def report(server: ServerFile) -> None:
    """Write the report of the newest run again, from its directory."""
    with operator_errors(PROGRAM):
        _report(server)


def main() -> None:
    """Entry point of the command."""
    escape_unprintable()
    heed_stop()
    app()


def _loaded(server: Path) -> ServerConfig:
    from fedcondense.config.server import load_server  # --help waits for none of these

    return load_server(server)


def _say(text: str = "") -> None:
    Console().print(text, highlight=False, markup=False, soft_wrap=True)


def _init(server: Path, name: str) -> None:
    from fedcondense.server.foundation import found

    founded = found(server, name)
    for path in founded.made:
        _say(f"wrote {path}")
    config = founded.config
    _say()
    _say(f"study digest              {founded.study_digest}")
    _say(f"run-signing fingerprint   {founded.run_signing}")
    _say(f"authority fingerprint     {founded.authority}")
    _say()
    _say("Give every site these two files, and the address")
    _say(f"  {config.study}")
    _say(f"  {config.tls.authority}")
    _say(f"  {config.address.shown}")
    _say("Digest and fingerprints are compared by voice or on paper, never by mail.")
    _say("The study can be edited until the first site has pinned its digest.")


def _enroll(server: Path, request: Path) -> None:
    from fedcondense.server.foundation import enroll_site

    asked = enroll_site(_loaded(server), request, now=time.time())
    _say(f"{asked.site} is enrolled until {_day(asked.expires)}. Compare with the site, now:")
    _show_keys(asked)
    _say(f"If they differ: {PROGRAM} revoke {server} {asked.site}")


def _revoke(server: Path, site: str) -> None:
    from fedcondense.server.foundation import register_of

    found = register_of(_loaded(server)).revoke(site, now=time.time())
    _say(
        f"{site} is revoked for good. A server that collects refuses it within seconds, one that "
        "concludes a round when that is done. Its keys were:"
    )
    _show_keys(found)


def _show_keys(asked: EnrolmentRequest) -> None:
    _say(f"signing key   {asked.signing_fingerprint}")
    _say(f"node key      {asked.node_fingerprint}")
    if asked.officer_fingerprint:
        _say(f"data officer  {asked.officer_fingerprint}")


def _run(server: Path) -> None:
    from fedcondense.flower.deployment import check_ports, check_tls, serve
    from fedcondense.server.current_run import study_of

    config = _loaded(server)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    check_tls(config)
    check_ports(config)
    study = study_of(config)
    from fedcondense.server.conclusion import Conclusion  # torch takes seconds
    from fedcondense.server.evaluation_images import load_evaluation
    from fedcondense.server.report import write_report

    with watch_on_terminal() as watch:
        tests = load_evaluation(config, study, watch=watch)

    def conclude(current: CurrentRun, number: int) -> None:
        with watch_on_terminal() as watch:
            Conclusion(config, tests, watch)(current, number)

    def finish(current: CurrentRun) -> None:
        write_report(config, current)

    _show_scores(serve(config, conclude=conclude, finish=finish))


def _report(server: Path) -> None:
    from fedcondense.server.current_run import newest_run

    config = _loaded(server)
    current = newest_run(config)
    from fedcondense.server.report import write_report  # scores are computed again

    write_report(config, current)
    _show_scores(current)


def _status(server: Path) -> bool:
    from fedcondense.flower.server_status import server_status

    found = server_status(_loaded(server))
    console = Console()
    _say(f"study {found.study}, digest {found.digest}")
    _say(_server_line(found))
    _say(f"certificate until {found.certificate_ends:%Y-%m-%d}, {_size(found.free_bytes)} free")
    if found.run is not None:
        _say(_run_line(found.run))
    table = Table("site", "enrolment", "online", "contribution", "code")
    for site in found.sites:
        online = "yes" if site.online else "no"
        table.add_row(site.name, site.standing, online, _contribution(site), site.code)
    console.print(table)
    return found.is_well


def _server_line(found: ServerStatus) -> str:
    if found.serving:
        return "the server runs and is open to sites"
    return "the server runs, but is not open to sites" if found.running else "no server runs"


def _run_line(run: RunStatus) -> str:
    where = f"run {run.path.name}, {_size(run.bytes)}"
    if run.finished:
        return f"{where}: finished"
    if run.round is None:
        return f"{where}: concluded, no report yet"
    contributed = f"{run.stored} contributed, the quorum is {run.quorum}"
    deadline = f"deadline {run.deadline:%Y-%m-%d %H:%M} UTC"
    return f"{where}: round {run.round} of {run.rounds}, {contributed}, {deadline}"


def _contribution(site: SiteStatus) -> str:
    words = {"stored": "contributed", "greeted": "asked whether ready", "lost": "went away"}
    return words.get(site.stage, str(site.stage))


def _show_scores(current: CurrentRun) -> None:
    from fedcondense.server.report import read_report

    found = read_report(current.run)
    scores = found.scores.global_set
    table = Table("trained on", "images", "balanced accuracy", "AUROC")
    accuracy, area = scores.balanced_accuracy, scores.auroc
    interval = f"({accuracy.low:.3f}-{accuracy.high:.3f})"
    told = f"{accuracy.mean:.3f} ± {accuracy.sd:.3f}  {interval}"
    table.add_row("global synthetic set", f"{scores.images:.0f}", told, f"{area.mean:.3f}")
    Console().print(table)
    _say(f"{len(found.sites)} of {found.run.enrolled} sites contributed")
    _say(f"report: {current.run.report_path}")


def _day(seconds: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def _size(value: int) -> str:
    from fedcondense.files.page import size_text

    return size_text(value)
