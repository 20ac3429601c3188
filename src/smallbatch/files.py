"""Writing a file so that a reader sees the old one or the whole new one, whenever the machine dies."""

import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from smallbatch.errors import UserError, printable

LONGEST = 16 * 2**20  # bytes of what describes a run or a data set
BEGUN = "--- "  # before the time, in a line of its own
LOG_END = 65536  # bytes of a log that hold its last lines
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # the colours and cursors of a terminal


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Lends a temporary path; on success its content is on the disk and then takes the name of `path`.

    It lies in a folder of its own, always of the same name: whatever a crash leaves there, also files that a library
    writes beside its own, goes at the next attempt. UserError where the disk has no room.
    """
    folder = path.parent / f".partial.{path.name}"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        partial = folder / path.name
        yield partial
        partial.chmod(folder.stat().st_mode & 0o666)  # as of any new file: safetensors lets nobody else read its own
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    except Exception as error:
        written = sum(file.stat().st_size for file in folder.glob("*"))
        shutil.rmtree(folder, ignore_errors=True)  # before what is free is measured
        refuse_if_full(path, written, error)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def append(path: Path, text: str) -> None:
    """All of `text` or nothing. UserError where the disk has no room."""
    with open(path, "ab", buffering=0) as file:
        before, left = file.tell(), text.encode()
        try:
            while left:
                left = left[file.write(left) :]
        except OSError as error:
            file.truncate(before)
            refuse_if_full(path, before + len(text), error)
            raise


FULL = {  # what the system says of it, and what helps
    os.strerror(errno.ENOSPC): "make room there",
    os.strerror(errno.EDQUOT): "make room within your quota there",
    os.strerror(errno.EFBIG): "raise the limit (`ulimit -f`), or use a disk that takes such files",
}


def refuse_if_full(path: Path, size: int, error: Exception) -> None:
    """Says in one line what an error means that came of a full disk; `size`: the bytes that `path` is known to need."""
    said = f"{error} {error.__context__}"  # torch raises an error of its own over the system's
    reason = next((reason for reason in FULL if reason in said), None)
    if reason is None:
        return
    free = free_bytes(path)
    size = max(size, path.stat().st_size if path.exists() else 0) or free
    raise UserError(
        f"no room for {path} ({reason}): it needs {decimal(size)} or more, {decimal(free)} are free; "
        f"{FULL[reason]}, then the same command goes on"
    ) from error


def sync(path: Path) -> None:
    """Forces a file, or a folder's list of names, onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_text(path: Path) -> str:
    """What describes a run or a data set; ValueError if it is no regular file, longer than LONGEST, or not UTF-8."""
    if not path.is_file():
        raise ValueError("it is no file")
    if path.stat().st_size > LONGEST:
        raise ValueError(f"it is longer than {LONGEST} bytes")
    return path.read_text(encoding="utf-8")


def read_json(path: Path) -> Any:
    """As `read_text`; ValueError also if it is no JSON."""
    try:
        return json.loads(read_text(path))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def last_lines(path: Path, count: int) -> list[str]:
    """Of a log since it was last begun anew, as a terminal would have left them and without what it would obey.

    None of what is no file.
    """
    if not path.is_file():
        return []
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - LOG_END))
        lines = file.read().decode(errors="replace").split("\n")
    begun = [number for number, line in enumerate(lines) if line.startswith(BEGUN)]
    lines = lines[begun[-1] :] if begun else lines
    left = [ESCAPES.sub("", line.rstrip("\r").rsplit("\r", 1)[-1]).expandtabs() for line in lines]
    return [printable(line) for line in left if line.strip()][-count:]


def inside(folder: Path, path: Path) -> bool:
    """Whether it leads nowhere else, through a link, than into a folder that somebody may have made."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


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
    with open(path.with_name(f".lock.{path.name}"), "a") as file:  # to truncate could empty what a link leads to
        fcntl.flock(file, how)
        yield
