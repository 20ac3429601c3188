"""Writing a file so that a reader sees the old one or the whole new one, whenever the machine dies."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Lends a temporary path beside `path`; on success its content is on the disk and then takes the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial.{path.name}")  # always the same name: a crash leaves at most one behind
    try:
        yield partial
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Forces a file, or a folder's list of names, onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def free_bytes(path: Path) -> int:
    """Where `path` is, or would be made."""
    return shutil.disk_usage(next(there for there in (path, *path.absolute().parents) if there.exists())).free


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Holds `path` as something being made; BlockingIOError if another process does.

    The lock's file stays: a process that had opened it before it was removed would hold another than who comes next.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f".lock.{path.name}"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
