"""EDM's data set format: a zip of PNG files with their labels in dataset.json. `data=images` reads it."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from smallbatch.data.classes import LISTING
from smallbatch.data.reading import chunks, refuse
from smallbatch.data.store import Source
from smallbatch.files import replacing
from smallbatch.notation import Labels


class Encoded(NamedTuple):
    """PNG files end to end. A tensor, as that reaches another process through shared memory, not through a pipe."""

    files: Tensor
    lengths: list[int]
    labels: Labels | None


def write_zip(source: Source, out: Path) -> None:
    """Row i becomes img<i>.png in folders of a thousand; `out` appears whole or not at all."""
    labels: list[tuple[str, int]] = []
    problems = []
    with replacing(out) as partial, zipfile.ZipFile(partial, "w") as archive:  # stored: PNG is compressed already
        for rows, part, found in chunks(encode(source), 0, len(source), "packing images"):
            problems += found
            if part is None:
                continue
            names = [f"{row // 1000:05d}/img{row:08d}.png" for row in rows]
            for name, file in zip(names, part.files.split(part.lengths), strict=True):
                archive.writestr(name, file.numpy().tobytes())
            if part.labels is not None:
                labels += zip(names, part.labels.tolist(), strict=True)
        refuse(problems, len(source))
        archive.writestr(LISTING, json.dumps({"labels": labels or None}))


def encode(source: Source) -> Callable[[range], Encoded]:
    def work(rows: range) -> Encoded:
        store = source.take(torch.arange(rows.start, rows.stop))
        files = [png(pixels) for pixels in store.pixels]
        whole = torch.frombuffer(bytearray(b"".join(files)), dtype=torch.uint8)
        return Encoded(whole, [len(file) for file in files], store.labels)

    return work


def png(pixels: Tensor) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).squeeze(2).contiguous().numpy()).save(file, "png")
    return file.getvalue()
