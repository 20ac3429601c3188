"""Making a packed store: once, by several processes, and going on where it was killed."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from smallbatch.data.module import ImageData, Parts
from smallbatch.data.packed import FORMAT, STAMP, open_part, read_stamp
from smallbatch.data.reading import chunks, refuse, take
from smallbatch.data.store import Source, digest, size_in_bytes
from smallbatch.errors import UserError
from smallbatch.files import free_bytes, replacing, sync
from smallbatch.notation import ImageSpec

BETWEEN_NOTES = 256 * 2**20  # bytes written before what is done is noted


def pack(data: ImageData, made_with: dict[str, Any], out: Path) -> None:
    """`out` appears whole or not at all; until then what is done lies in a folder beside it."""
    wanted = {
        "format": FORMAT,
        "spec": data.spec._asdict(),
        "class_names": data.class_names,
        "counts": {name: len(part) for name, part in zip(Parts._fields, data.parts, strict=True)},
        "made_with": made_with,
        "made_from": data.fingerprint,
    }
    if out.exists():
        refuse_other(out, read_stamp(out), wanted)
        return
    with unfinished(out, wanted) as folder:
        if not any(folder.glob("*.npy")):  # else it has taken its room already
            refuse_too_large(out, *data.parts, spec=data.spec)
        problems = []
        for name, part in zip(Parts._fields, data.parts, strict=True):
            problems += fill(folder, name, part, data.spec)
        if len(problems) > 1:
            listed = out.with_name(f"{out.name}.problems.txt")
            listed.write_text("\n".join(problems) + "\n")
            problems[0] += f" [{listed} lists all]"
        refuse(problems, sum(wanted["counts"].values()))
        parts = [open_part(folder, name, data.spec, wanted["counts"][name]) for name in Parts._fields]
        with replacing(folder / STAMP) as partial:
            partial.write_text(json.dumps(wanted | {"digest": digest(*parts)}, indent=1) + "\n")
        sync(folder)
        folder.rename(out)
        for note in out.glob("*.done"):
            note.unlink()
        sync(out.parent)


def refuse_other(out: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Names what an existing store was made with, where something else is asked."""
    old, new = ({**stamp["made_with"], "images": stamp["made_from"]} for stamp in (found, wanted))
    odd = [f"data.{key}={old.get(key)}, not {new.get(key)}" for key in {**old, **new} if old.get(key) != new.get(key)]
    if odd:
        raise UserError(f"out={out} was made with {'; '.join(odd)}: remove it, or choose another out")


def refuse_too_large(out: Path, *parts: Source, spec: ImageSpec) -> None:
    needed, free = sum(size_in_bytes(part, spec) for part in parts), free_bytes(out)
    if needed > free:
        raise UserError(f"out={out} needs {needed / 2**30:,.1f} GiB, {free / 2**30:,.1f} are free there")


@contextmanager
def unfinished(out: Path, wanted: dict[str, Any]) -> Iterator[Path]:
    """The folder where this very store was begun, or an empty one; no other process has it."""
    folder = out.with_name(f".partial.{out.name}")
    folder.mkdir(parents=True, exist_ok=True)
    with open(out.with_name(f".lock.{out.name}"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"out={out} is being made by another process; wait for it or stop it") from None
        begun = folder / "begun.done"
        if not begun.exists() or json.loads(begun.read_text()) != wanted:
            shutil.rmtree(folder)
            folder.mkdir()
            with replacing(begun) as partial:
                partial.write_text(json.dumps(wanted))
        yield folder
    out.with_name(f".lock.{out.name}").unlink(missing_ok=True)


def fill(folder: Path, name: str, source: Source, spec: ImageSpec) -> list[str]:
    """Writes the rows that are not yet there; returns the problems of all."""
    count = len(source)
    pixels = array(folder / f"{name}.npy", (count, spec.channels, spec.size, spec.size), np.uint8)
    labels = array(folder / f"{name}_labels.npy", (count,), np.int64)
    note = folder / f"{name}.done"
    rows_done, problems = json.loads(note.read_text()) if note.exists() else (0, [])
    every = max(BETWEEN_NOTES * count // max(size_in_bytes(source, spec), 1), 1)
    noted = rows_done
    for rows, part, found in chunks(take(source), rows_done, count, f"packing {name.replace('_', '-')} images"):
        problems += found
        if part is not None:
            pixels[rows.start : rows.stop] = part.pixels
            labels[rows.start : rows.stop] = -1 if part.labels is None else part.labels
        if rows.stop - noted >= every or rows.stop == count:
            pixels.flush()
            labels.flush()
            noted = rows.stop
            with replacing(note) as partial:
                partial.write_text(json.dumps([noted, problems]))
    return problems


def array(path: Path, shape: tuple[int, ...], dtype: type) -> np.memmap:
    """A file of that shape, as it was left or all zero, and room for all of it: a mapped page without any kills."""
    if path.exists():
        return np.lib.format.open_memmap(path, mode="r+", dtype=dtype, shape=shape)
    made = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    try:
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError:
        path.unlink()
        raise
    return made
