"""One process, and in it one thread, at a time: locks that end with whoever holds them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


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
        free = False
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        yield free


def is_locked(path: Path) -> bool:
    """Whether somebody holds `path` now; nobody holds what does not exist."""
    if not path.exists():
        return False
    with locked_if_free(path) as free:
        return not free


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A descriptor of its own: locks of one file through two descriptors exclude each other."""
    flags = os.O_RDONLY if path.is_dir() else os.O_WRONLY | os.O_CREAT
    descriptor = os.open(path, flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
