"""One process, and in it one thread, at a time: locks that end with whoever holds them."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LONGEST_LOOK = 1.0  # seconds


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until `path` is free and hold it for as long as the context lasts.

    Args:
        path: an existing folder, which gets no file by it, or a lock file, made where missing.
    """
    with _opened(path) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Like `locked`, but never wait: say False, and hold nothing, where somebody else holds it."""
    with _opened(path) as descriptor:
        yield _takes(descriptor)


def is_locked(path: Path) -> bool:
    """Whether somebody holds `path` now; nobody holds what does not exist."""
    if not path.exists():
        return False
    with _opened(path) as descriptor:
        return not _locks(descriptor, fcntl.LOCK_SH)


def _takes(descriptor: int) -> bool:
    """Whether it is ours now; who only looks holds it for an instant, and shared."""
    until = time.monotonic() + LONGEST_LOOK
    while not _locks(descriptor, fcntl.LOCK_EX):
        if not _locks(descriptor, fcntl.LOCK_SH) or time.monotonic() > until:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        time.sleep(0.01)
    return True


def _locks(descriptor: int, kind: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        return True
    return False


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A descriptor of its own: locks of one file through two descriptors exclude each other."""
    flags = os.O_RDONLY if path.is_dir() else os.O_WRONLY | os.O_CREAT
    descriptor = os.open(path, flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
