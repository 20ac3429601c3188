"""EDM's data set format: a zip of PNG files with their labels in dataset.json. `data=images` reads it."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from smallbatch.data.classes import LISTING
from smallbatch.data.reading import chunks, refuse
from smallbatch.data.store import Source
from smallbatch.files import replacing


def write_zip(source: Source, out: Path) -> None:
    """Row i becomes img<i>.png in folders of a thousand; `out` appears whole or not at all."""
    labels: list[tuple[str, int]] = []
    problems = []
    with replacing(out) as partial, zipfile.ZipFile(partial, "w") as archive:  # stored: PNG is compressed already
        for rows, part, found in chunks(as_png(source), 0, len(source), "packing images"):
            problems += found
            for row, (png, label) in zip(rows, part or (), strict=False):
                name = f"{row // 1000:05d}/img{row:08d}.png"
                archive.writestr(name, png)
                labels += [] if label is None else [(name, label)]
        refuse(problems, len(source))
        archive.writestr(LISTING, json.dumps({"labels": labels or None}))


def as_png(source: Source) -> Callable[[range], list[tuple[bytes, int | None]]]:
    """Rows as PNG files, each with its class."""

    def encode(rows: range) -> list[tuple[bytes, int | None]]:
        store = source.take(torch.arange(rows.start, rows.stop))
        labels = [None] * len(rows) if store.labels is None else store.labels.tolist()
        return [(png(pixels), label) for pixels, label in zip(store.pixels, labels, strict=True)]

    return encode


def png(pixels: torch.Tensor) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).squeeze(2).contiguous().numpy()).save(file, "png")
    return file.getvalue()
