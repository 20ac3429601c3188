"""Writing a file so that a reader sees the old one or the whole new one, whenever the machine dies."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
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


def alone(path: Path) -> AbstractContextManager[None]:
    """Holds `path` as something being made; BlockingIOError if another process does."""
    return _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)


def in_turn(path: Path) -> AbstractContextManager[None]:
    """Waits for any other process that makes `path`: one makes it, the others then find it done."""
    return _locked(path, fcntl.LOCK_EX)


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    """The lock's file stays: a process that had opened it before it was removed would hold another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f".lock.{path.name}"), "w") as file:
        fcntl.flock(file, how)
        yield
