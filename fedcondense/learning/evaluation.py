"""Fresh networks trained on sets, many at once: one single-threaded process per core."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64

from fedcondense.config.study import EvaluationProtocol, ImageSpec, NetworkSpec
from fedcondense.errors import WorkerLost
from fedcondense.files.storage import arrays_to_bytes, read_arrays
from fedcondense.learning.networks import ConvNet, build_network
from fedcondense.learning.randomness import Seed
from fedcondense.learning.training import TrainingSet, predict, train_classifier
from fedcondense.progress import Step, Watch, silent

PAPER_EPOCHS, PAPER_BATCH = 1_001, 256  # Zhao et al. 2023, as their code evaluates


@dataclass(frozen=True)
class Pictures:
    """Images in normalised units (N, C, H, W) with their labels."""

    images: Float32[np.ndarray, "n c h w"]
    labels: Int64[np.ndarray, " n"]


@dataclass(frozen=True)
class Ingredient:
    """One of the `Pictures`, and the share of each batch that it fills."""

    pictures: str
    share: float = 1.0


@dataclass(frozen=True)
class Candidate:
    """One thing to train networks on; `networks` of them, from named streams of `seed`."""

    name: str
    ingredients: tuple[Ingredient, ...]
    networks: int
    first: int = 0


@dataclass(frozen=True)
class Bench:
    """What all candidates of one evaluation share."""

    pictures: Mapping[str, Pictures]
    tests: Mapping[str, Float32[np.ndarray, "n c h w"]]
    protocol: EvaluationProtocol
    network: NetworkSpec
    image: ImageSpec
    classes: int
    seed: int


@dataclass(frozen=True)
class Outcome:
    """Predictions of each network on each test set, and the first network's weights."""

    probabilities: dict[str, Float32[np.ndarray, "m n k"]]
    weights: dict[str, np.ndarray]


def steps_and_batch(protocol: EvaluationProtocol, images: int) -> tuple[int, int]:
    """Length of training and batch size for a set of `images`."""
    if protocol.length == "short":
        return protocol.steps, protocol.batch
    return PAPER_EPOCHS * -(-images // PAPER_BATCH), PAPER_BATCH


def train_network(bench: Bench, candidate: Candidate, number: int) -> ConvNet:
    """Train the candidate's network of that number, the same on any machine and in any order.

    The stream is named by the number alone: candidates that are compared begin from the same
    weights, which pairs their differences.
    """
    generator = Seed(bench.seed).stream(f"evaluation-{number}")
    network = build_network(
        channels=bench.image.channels,
        classes=bench.classes,
        size=bench.image.size,
        width=bench.network.width,
        depth=bench.network.depth,
        generator=generator,
    )
    parts = [bench.pictures[ingredient.pictures] for ingredient in candidate.ingredients]
    steps, batch = steps_and_batch(bench.protocol, max(len(p.labels) for p in parts))
    sets = [
        TrainingSet(
            torch.from_numpy(part.images),
            torch.from_numpy(part.labels),
            max(1, round(batch * ingredient.share)),
        )
        for part, ingredient in zip(parts, candidate.ingredients, strict=True)
    ]
    families = [str(f) for f in bench.protocol.families]
    train_classifier(network, sets, steps=steps, families=families, generator=generator)
    return network


def evaluate(
    bench: Bench, candidates: Sequence[Candidate], *, processes: int = 1, watch: Watch = silent
) -> dict[str, Outcome]:
    """Train every network of every candidate and predict every test set.

    `watch` hears of the stage `evaluating`, or `evaluating NAME` where there is one candidate.

    Results do not depend on `processes`; with one, all runs in this process.
    """
    jobs = [(c, c.first + n) for c in candidates for n in range(c.networks)]
    found: dict[tuple[str, int], _Trained] = {}
    runs = _here(bench, jobs) if processes == 1 else _in_processes(bench, jobs, processes)
    stage = "evaluating" if len(candidates) > 1 else f"evaluating {candidates[0].name}"
    for done, trained in enumerate(runs, start=1):
        found[trained.candidate, trained.number] = trained
        watch(Step(stage, done, len(jobs)))
    return {
        c.name: _together([found[c.name, c.first + n] for n in range(c.networks)])
        for c in candidates
    }


Job = tuple[Candidate, int]


@dataclass(frozen=True)
class _Trained:
    """What one network leaves behind."""

    candidate: str
    number: int
    probabilities: dict[str, Float32[np.ndarray, "n k"]]
    weights: dict[str, np.ndarray]


def _together(networks: Sequence[_Trained]) -> Outcome:
    tests = networks[0].probabilities
    stacked = {test: np.stack([n.probabilities[test] for n in networks]) for test in tests}
    return Outcome(stacked, networks[0].weights)


def _run(bench: Bench, job: Job) -> _Trained:
    candidate, number = job
    network = train_network(bench, candidate, number)
    probabilities = {
        name: predict(network, torch.from_numpy(x)).numpy() for name, x in bench.tests.items()
    }
    weights = {k: v.numpy() for k, v in network.state_dict().items()}
    return _Trained(candidate.name, number, probabilities, weights)


def _here(bench: Bench, jobs: Sequence[Job]) -> Iterator[_Trained]:
    return (_run(bench, job) for job in jobs)


_BENCH: list[Bench] = []  # of a worker process: settled once, not with every job


def _settle(form: Bench, file: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent alone answers Ctrl-C
    torch.set_num_threads(1)
    _BENCH[:] = [_filled(form, read_arrays(file))]


def _run_settled(job: Job) -> _Trained:
    return _run(_BENCH[0], job)


def _in_processes(bench: Bench, jobs: Sequence[Job], processes: int) -> Iterator[_Trained]:
    with _in_unnamed_file(arrays_to_bytes(_arrays(bench))) as file:
        form = replace(bench, pictures={}, tests={})
        yield from _in_pool(_settle, (form, file), jobs, processes)


def _in_pool(
    settle: Callable[..., None], form: tuple[object, ...], jobs: Sequence[Job], processes: int
) -> Iterator[_Trained]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=settle, initargs=form)
    try:
        for future in as_completed([pool.submit(_run_settled, job) for job in jobs]):
            yield future.result()
    except BrokenProcessPool:
        raise WorkerLost(
            "a process that trained a classifier was killed",
            hint="free memory, or set evaluation.networks or image.size lower, and run again",
        ) from None
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _in_unnamed_file(data: bytes) -> Iterator[Path]:
    """A path by which our children can read `data`, gone with this process however it ends.

    Handed over with the start of a process, data that fill its pipe would block for ever where
    that process is killed before it reads them.
    """
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")


def _arrays(bench: Bench) -> dict[str, np.ndarray]:
    images = {f"images/{name}": p.images for name, p in bench.pictures.items()}
    labels = {f"labels/{name}": p.labels for name, p in bench.pictures.items()}
    return images | labels | {f"tests/{name}": x for name, x in bench.tests.items()}


def _filled(form: Bench, arrays: Mapping[str, np.ndarray]) -> Bench:
    def of(kind: str) -> dict[str, np.ndarray]:
        prefix = f"{kind}/"
        return {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}

    labels = of("labels")
    pictures = {name: Pictures(images, labels[name]) for name, images in of("images").items()}
    return replace(form, pictures=pictures, tests=of("tests"))
