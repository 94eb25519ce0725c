"""One repetition of a scenario on Flower's own simulation engine, as child processes.

The engine is Ray's, and one core plays one site at a time. When a site's process dies, Ray's pool
keeps the dead process and hands it every request that follows; so the Flower run is ended, and
another asks the remaining sites. Sites that sealed before answer from what they kept.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import tomli_w

import fedcondense
from fedcondense.errors import FederationError
from fedcondense.files.storage import read_json
from fedcondense.flower.processes import Child, Children, free_port, program
from fedcondense.flower.round_files import (
    Intake,
    Plan,
    longest_telling,
    marks_path,
    read_intake,
    read_marks,
    write_plan,
)
from fedcondense.progress import Step, Watch, silent
from fedcondense.server.run_directory import RunDirectory

HOST = "127.0.0.1"
BUNDLE = Path(__file__).parent / "bundle"
SIMULATION = "FEDCONDENSE_SIMULATION"  # environment: the repetition whose sites are played
MOST_RUNS = 4  # Flower runs of one round
MOST_TRIES = 2  # requests to a site whose process died
PAUSE = 0.2  # seconds between two looks
LONGEST_START = 120.0  # seconds for the SuperLink
GRACE = 120.0  # seconds beyond the deadline for the ServerApp to write its intake
SHORT_SCRATCH = Path("/tmp")  # the paths of Ray's sockets must stay below 108 bytes


@dataclass(frozen=True)
class FederationTimes:
    """What a federation cost in seconds, summed over the Flower runs of all rounds.

    `start_up` is from the start of Flower's processes to the first site's answer to hello;
    `exchange` from the first request to the last reply, so it holds the sites' condensing.
    """

    start_up: float
    exchange: float
    total: float
    runs: int


def nothing() -> None:
    """Do nothing between two looks."""


def run_federation(
    repetition: Path,
    *,
    cpus: int,
    gpus: float = 0.0,
    conclude: Callable[[int], None],
    watch: Watch = silent,
    meanwhile: Callable[[], None] = nothing,
) -> FederationTimes:
    """Play all rounds of the repetition's federation and return when the last is concluded.

    Args:
        repetition: directory with `server/`, `sites.json` and `sites/<name>/`.
        cpus: sites that condense at once, one core each.
        gpus: share of a GPU that each of them takes; 0 for none.
        conclude: called in this process with the number of a round, once all contributions of it
            are stored; opens, aggregates, evaluates, signs the result and writes done.json. What
            it raises ends the federation.
        watch: told how many sites have contributed.
        meanwhile: called several times a second while sites condense.

    Raises:
        FederationError: Flower's processes failed or never became ready.
    """
    federation = _Federation(repetition, cpus, gpus, watch, meanwhile)
    began = time.monotonic()
    federation.play(conclude)
    return FederationTimes(
        start_up=round(federation.start_up, 3),
        exchange=round(federation.exchange, 3),
        total=round(time.monotonic() - began, 3),
        runs=federation.runs,
    )


@dataclass
class _Federation:
    repetition: Path
    cpus: int
    gpus: float
    watch: Watch
    meanwhile: Callable[[], None]
    start_up: float = 0.0
    exchange: float = 0.0
    runs: int = 0
    tries: Counter[str] = field(default_factory=Counter)
    round: int = 1
    earlier_runs: int = 0

    def __post_init__(self) -> None:
        self.run = RunDirectory(self.repetition / "server")
        self.home = self.run.path / "flower"
        self.log = self.home / "flower.log"
        self.names: list[str] = read_json(self.repetition / "sites.json")
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.deadline = self.run.description().deadline

    @property
    def marks(self) -> Path:
        """When what happened in the newest Flower run."""
        return marks_path(self.run.round(self.round))

    def play(self, conclude: Callable[[int], None]) -> None:
        """One round after the other."""
        for number in range(1, self.run.study().rounds + 1):
            self.round, self.earlier_runs, self.tries = number, self.runs, Counter()
            self._play_round(conclude)

    def _play_round(self, conclude: Callable[[int], None]) -> None:
        """Flower runs until nobody is left to ask; the last one lives until the conclusion."""
        at_once = max(1, min(self.cpus, len(self.names)))
        plan: Plan | None = Plan(self.round, tuple(self.names), at_once)
        while plan is not None:
            plan = self._play_once(plan, conclude)

    def _play_once(self, plan: Plan, conclude: Callable[[int], None]) -> Plan | None:
        """One Flower run; what the next one must ask, or None if the round is concluded."""
        with self._processes() as children:
            submission = self._submit(children, plan)
            again = self._next(plan, self._await_intake(submission))
            if again is None:
                conclude(self.round)
                self._await_telling(submission)
            return again

    def _await_telling(self, submission: Child) -> None:
        """After the last round, let the sites hear what the study gave."""
        if self.round == self.run.study().rounds:
            told = self.run.told(self.round)
            longest = longest_telling(self.run, self.round, len(self.names))
            self._await(lambda: told.exists() or submission.poll() is not None, longest)

    def _next(self, plan: Plan, intake: Intake | None) -> Plan | None:
        """What the next Flower run must ask, or None if this one was the last.

        Who has never been asked comes first: whoever's process died may take Flower along again.
        """
        if intake is None:  # Flower broke after it had begun
            return plan
        self.tries.update(intake.lost)
        retry = [site for site in intake.lost if self.tries[site] < MOST_TRIES]
        ask = (*intake.unasked, *retry)
        if not ask or self._has_run_enough() or time.time() > self.deadline:
            return None
        return replace(plan, ask=ask, refused=intake.refused, failed=intake.failed)

    def _submit(self, children: Children, plan: Plan) -> Child:
        """Start the SuperLink, and the command that submits the run and ends with it."""
        for path in (self.run.intake(self.round), self.marks):
            path.unlink(missing_ok=True)
        write_plan(self.run.request(self.round), plan)
        self.runs += 1
        self.began = time.time()
        port = free_port()
        _write_connection(self.home, port)
        superlink = children.start(_superlink_command(port))
        ready = self._await(lambda: superlink.poll() is not None or _is_up(port), LONGEST_START)
        if not ready or superlink.poll() is not None:
            raise self._failure("Flower's SuperLink did not start")
        return children.start(self._run_command(plan.at_once))

    def _await_intake(self, submission: Child) -> Intake | None:
        """The intake, or None if the Flower run broke off and another may do better.

        Raises:
            FederationError: no site ever answered, or it broke too often.
        """
        path = self.run.intake(self.round)
        left = max(self.deadline - time.time(), 0.0) + GRACE
        self._await(lambda: path.exists() or submission.poll() is not None, left)
        marks = read_marks(self.marks)
        self._add(marks)
        if path.exists():
            return read_intake(path)
        if "first_hello" not in marks or self._has_run_enough():
            raise self._failure("Flower's simulation ended before the round did")
        return None

    def _has_run_enough(self) -> bool:
        return self.runs - self.earlier_runs >= MOST_RUNS

    def _await(self, done: Callable[[], bool], seconds: float) -> bool:
        """Whether `done` becomes true in time; the watchers are told how it goes."""
        until, told = time.monotonic() + seconds, -1
        while not done():
            if time.monotonic() > until:
                return False
            stored = sum(self.run.sealed(self.round, name).exists() for name in self.names)
            if stored != told:
                self.watch(Step("contributions", stored, len(self.names)))
                told = stored
            self.meanwhile()
            time.sleep(PAUSE)
        return True

    def _add(self, marks: dict[str, float]) -> None:
        self.start_up += max(marks.get("first_hello", time.time()) - self.began, 0.0)
        if "last_reply" in marks:
            self.exchange += max(marks["last_reply"] - marks["first_push"], 0.0)

    def _run_command(self, actors: int) -> list[str]:
        federation = (
            f"num-supernodes={len(self.names)} client-resources-num-cpus=1 "
            f"client-resources-num-gpus={float(self.gpus)} init-args-num-cpus={actors}"
        )
        config = f"run-directory={_quoted(str(self.run.path.absolute()))}"
        options = ["--stream", "--federation-config", federation, "--run-config", config]
        return [program("flwr"), "run", str(BUNDLE), *options]

    def _processes(self) -> Children:
        scratch = Path(tempfile.mkdtemp(prefix="fc-", dir=_short_folder()))
        return Children(self._environment(scratch), self.log, scratch)

    def _environment(self, scratch: Path) -> dict[str, str]:
        package = str(Path(fedcondense.__file__).parent.parent)
        foreign = {"RAY_ADDRESS", *(name for name in os.environ if name.startswith("FLWR_"))}
        return {
            **{name: value for name, value in os.environ.items() if name not in foreign},
            SIMULATION: str(self.repetition.absolute()),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "PYTHONPATH": os.pathsep.join(
                filter(None, [package, os.environ.get("PYTHONPATH", "")])
            ),
            "FLWR_HOME": str(self.home.absolute()),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
            "RAY_TMPDIR": str(scratch),
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
            # large tensors stay on the heap: returning them after each step is slow
            "MALLOC_MMAP_THRESHOLD_": "4294967296",
            "MALLOC_TRIM_THRESHOLD_": "8589934592",
        }

    def _failure(self, what: str) -> FederationError:
        return FederationError(what, hint=f"see the end of {self.log}")


def _superlink_command(port: int) -> list[str]:
    options = ["--simulation", "--insecure", "--host", HOST, "--port", str(port)]
    return [program("flower-superlink"), *options, "--disable-runtime-dependency-installation"]


def _write_connection(home: Path, port: int) -> None:
    """Flower's own configuration, by which `flwr run` finds the SuperLink."""
    connection = {"address": f"{HOST}:{port}", "insecure": True}
    values = {"superlink": {"default": "simulation", "simulation": connection}}
    (home / "config.toml").write_text(tomli_w.dumps(values), encoding="utf-8")


def _is_up(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=1.0)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    return False


def _short_folder() -> Path | None:
    return SHORT_SCRATCH if SHORT_SCRATCH.is_dir() else None


def _quoted(text: str) -> str:
    """A TOML string."""
    return tomli_w.dumps({"x": text}).removeprefix("x = ").strip()
