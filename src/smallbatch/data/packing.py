"""Making a packed store: once, by several processes, and going on where it was killed."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from smallbatch.data import making
from smallbatch.data.module import ImageData, Parts
from smallbatch.data.packed import open_part
from smallbatch.data.reading import chunks, take
from smallbatch.data.stamp import ARRAYS
from smallbatch.data.store import Source, digest, size_in_bytes
from smallbatch.files import replacing
from smallbatch.notation import ImageSpec

BETWEEN_NOTES = 256 * 2**20  # bytes written before what is done is noted


def pack(data: ImageData, made_with: dict[str, Any], out: Path) -> None:
    """`out` appears whole or not at all; until then what is done lies in a folder beside it."""
    wanted = {
        "format": ARRAYS,
        "spec": data.spec._replace(low_size=None)._asdict(),
        "class_names": data.class_names,
        "counts": {name: len(part) for name, part in zip(Parts._fields, data.parts, strict=True)},
        "made_with": made_with,
        "made_from": data.fingerprint,
    }
    if making.there(out, wanted):
        return
    folder = making.begin(out, wanted, sum(size_in_bytes(part, data.spec) for part in data.parts))
    problems = [p for name, part in zip(Parts._fields, data.parts, strict=True) for p in fill(folder, name, part, data)]
    making.refuse_problems(out, problems, sum(wanted["counts"].values()))
    finish(folder, out, wanted)


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
    parts = [open_part(folder, name, ImageSpec(**wanted["spec"]), count) for name, count in wanted["counts"].items()]
    making.finish(folder, out, wanted | {"digest": digest(*parts)})
