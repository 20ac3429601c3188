"""Making a packed store: once, by several processes, and going on where it was killed."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from rich.filesize import decimal

from smallbatch.data.module import ImageData, Parts
from smallbatch.data.packed import FORMAT, STAMP, open_part, read_stamp
from smallbatch.data.reading import chunks, refuse, take
from smallbatch.data.store import Source, digest, size_in_bytes
from smallbatch.errors import UserError
from smallbatch.files import free_bytes, replacing, sync
from smallbatch.notation import ImageSpec

BETWEEN_NOTES = 256 * 2**20  # bytes written before what is done is noted
BEGUN = "begun.json"  # what an unfinished store will be


def pack(data: ImageData, made_with: dict[str, Any], out: Path) -> None:
    """`out` appears whole or not at all; until then what is done lies in a folder beside it."""
    wanted = {
        "format": FORMAT,
        "spec": data.spec._replace(low_size=None)._asdict(),
        "class_names": data.class_names,
        "counts": {name: len(part) for name, part in zip(Parts._fields, data.parts, strict=True)},
        "made_with": made_with,
        "made_from": data.fingerprint,
    }
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        refuse_other(out, wanted)
        return
    folder = begin(out, wanted, data)
    listed = out.with_name(f"{out.name}.problems.txt")
    problems = [p for name, part in zip(Parts._fields, data.parts, strict=True) for p in fill(folder, name, part, data)]
    if len(problems) > 1:
        listed.write_text("\n".join(problems) + "\n")
        problems[0] += f" [{listed} lists all]"
    refuse(problems, sum(wanted["counts"].values()))
    finish(folder, out, wanted)
    listed.unlink(missing_ok=True)


def refuse_other(out: Path, wanted: dict[str, Any]) -> None:
    """Names what an existing store was made with, where something else is asked."""
    if not (out / STAMP).exists():
        raise UserError(f"out={out} is there already, and no packed store: remove it, or choose another out")
    old, new = ({**stamp["made_with"], "images": stamp["made_from"]} for stamp in (read_stamp(out), wanted))
    odd = [f"data.{key}={old.get(key)}, not {new.get(key)}" for key in {**old, **new} if old.get(key) != new.get(key)]
    if odd:
        raise UserError(f"out={out} was made with {'; '.join(odd)}: remove it, or choose another out")


def refuse_too_large(out: Path, *parts: Source, spec: ImageSpec) -> None:
    needed, free = sum(size_in_bytes(part, spec) for part in parts), free_bytes(out)
    if needed > free:
        raise UserError(
            f"out={out} needs {decimal(needed)}, {decimal(free)} are free there: lower data.size, or give another disk"
        )


def begin(out: Path, wanted: dict[str, Any], data: ImageData) -> Path:
    """The folder where this very store was begun, or an empty one."""
    folder = out.with_name(f".partial.{out.name}")
    begun = folder / BEGUN
    if not begun.exists() or json.loads(begun.read_text()) != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        refuse_too_large(out, *data.parts, spec=data.spec)
        with replacing(begun) as partial:
            partial.write_text(json.dumps(wanted))
    return folder


def fill(folder: Path, name: str, source: Source, data: ImageData) -> list[str]:
    """Writes the rows that are not yet there; returns the problems of those. What is noted as done had none."""
    spec, count, note = data.spec, len(source), folder / f"{name}.done"
    done = int(note.read_text()) if note.exists() else 0
    pixels = array(folder / f"{name}.npy", (count, spec.channels, spec.size, spec.size), np.uint8, begun=note.exists())
    labels = array(folder / f"{name}_labels.npy", (count,), np.int64, begun=note.exists())
    every = max(BETWEEN_NOTES * count // max(size_in_bytes(source, spec), 1), 1)
    problems: list[str] = []
    for rows, part, found in chunks(take(source), done, count, f"packing {name.replace('_', '-')} images"):
        problems += found
        if part is not None:
            pixels[rows.start : rows.stop] = part.pixels
            labels[rows.start : rows.stop] = -1 if part.labels is None else part.labels
        if not problems and (rows.stop - done >= every or rows.stop == count):
            pixels.flush()
            labels.flush()
            done = rows.stop
            with replacing(note) as partial:
                partial.write_text(str(done))
    return problems


def array(path: Path, shape: tuple[int, ...], dtype: type, begun: bool) -> np.memmap:
    """As it was left, or all zero with room for all of it on the disk: a mapped page that finds none kills."""
    made = np.lib.format.open_memmap(path, mode="r+" if begun else "w+", dtype=dtype, shape=shape)
    if not begun and hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return made


def finish(folder: Path, out: Path, wanted: dict[str, Any]) -> None:
    """Stamps the store and gives it its name."""
    parts = [open_part(folder, name, ImageSpec(**wanted["spec"]), count) for name, count in wanted["counts"].items()]
    with replacing(folder / STAMP) as partial:
        partial.write_text(json.dumps(wanted | {"digest": digest(*parts)}, indent=1) + "\n")
    sync(folder)
    folder.rename(out)
    for note in (out / BEGUN, *out.glob("*.done")):
        note.unlink()
    sync(out.parent)
