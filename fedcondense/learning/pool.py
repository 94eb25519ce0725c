"""Many jobs at once: one single-threaded process per core, which reads the shared data once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from fedcondense.errors import WorkerLost
from fedcondense.files.storage import arrays_to_bytes, read_arrays

Job = TypeVar("Job")
Result = TypeVar("Result")
Arrays = Mapping[str, np.ndarray]


def run_in_processes(
    arrays: Arrays,
    settle: Callable[[Arrays], None],
    run: Callable[[Job], Result],
    jobs: Sequence[Job],
    processes: int,
) -> Iterator[Result]:
    """The results of all jobs, as they come.

    Every process hands `arrays` to `settle` before its first job.

    Raises:
        WorkerLost: a process was killed.
    """
    with _in_unnamed_file(arrays_to_bytes(dict(arrays))) as file:
        yield from in_pool(_begin, (settle, file), run, jobs, processes)


def in_pool(
    begin: Callable[..., None],
    given: tuple[object, ...],
    run: Callable[[Job], Result],
    jobs: Sequence[Job],
    processes: int,
) -> Iterator[Result]:
    """The results of all jobs in processes that each `begin` with what is `given`.

    They are gone with this process however it ends.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        processes, context, initializer=_begin_bound, initargs=(begin, given)
    )
    try:
        for future in as_completed([pool.submit(run, job) for job in jobs]):
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


def _begin_bound(begin: Callable[..., None], given: tuple[object, ...]) -> None:
    """Every process of a pool holds both ends of its pipes: none ends when the parent is killed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    begin(*given)


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _begin(settle: Callable[[Arrays], None], file: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent alone answers Ctrl-C
    torch.set_num_threads(1)
    settle(read_arrays(file))


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
