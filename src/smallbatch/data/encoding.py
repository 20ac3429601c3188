"""Making a sharded store: images to latents and captions to features, once, by several processes, and going on where it
was killed.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from smallbatch.data import making
from smallbatch.data.images import to_float
from smallbatch.data.module import ImageData, Parts
from smallbatch.data.reading import chunks
from smallbatch.data.shard_list import INDEX, need_litdata
from smallbatch.data.shard_rows import Row
from smallbatch.data.shard_writing import done, merge, units, write
from smallbatch.data.stamp import SHARDS
from smallbatch.data.store import Source, Store
from smallbatch.errors import UserError
from smallbatch.files import replacing
from smallbatch.latents.autoencoder import Autoencoder
from smallbatch.notation import ImageSpec, Latents, Pixels
from smallbatch.randomness import SampleNoise, key
from smallbatch.text.encoder import TextEncoder
from smallbatch.text.storage import STORAGES

OVERHEAD = 512  # bytes of a row beside image and features: a caption, for the most
PROBLEMS = "problems.{}.json"  # of the process with this number


class Encoders(NamedTuple):
    """What makes latents and features; None: pixels stay pixels, captions are kept as they are, to be heard later."""

    autoencoder: Autoencoder | None
    text: TextEncoder | None
    storage: str  # of the features

    def spec(self, images: ImageSpec) -> ImageSpec:
        kept = images._replace(low_size=None, text=None)
        if self.autoencoder is None:
            return kept
        if kept.latents:
            raise UserError("latents: the data holds latents already: leave latents out, or give the images themselves")
        return self.autoencoder.latents(kept)

    def bytes(self, images: ImageSpec) -> int:
        """Of one row, about."""
        spec = self.spec(images)
        image = spec.channels * spec.size**2 * (2 if spec.latents else 1)
        return image + OVERHEAD + (0 if self.text is None else STORAGES[self.storage].bytes(self.text.spec))

    def prepare(self) -> None:
        for encoder in (self.autoencoder, self.text):
            if encoder is not None:
                encoder.prepare()


class Work(NamedTuple):
    """One of `ranks` processes, which take turns at the shards."""

    rank: int
    ranks: int
    device: torch.device
    wait: Callable[[], Any]  # for the others
    at_once: int  # images


class Taken(NamedTuple):
    """A row as it was read."""

    number: int
    image: Tensor  # pixels, or latents
    label: int  # -1: none
    caption: str


def encode(
    data: ImageData, made_with: dict[str, Any], encoders: Encoders, out: Path, shard_bytes: int, work: Work
) -> None:
    """`out` appears whole or not at all. Every process must call it; row i is the same however many there are."""
    need_litdata()
    size = encoders.bytes(data.spec)
    wanted = stamp_of(data, made_with, encoders, rows=max(1, shard_bytes // size))
    if making.there(out, wanted):
        return
    encoders.prepare()
    parts, total = dict(zip(Parts._fields, data.parts, strict=True)), sum(map(len, data.parts))
    if work.rank == 0:
        making.begin(out, wanted, size * total)
    work.wait()
    folder = out.with_name(f".partial.{out.name}")
    problems = [p for name, part in parts.items() for p in fill(folder / name, part, wanted["rows"], encoders, work)]
    problems = everyones(problems, folder, work)
    if work.rank == 0:
        making.refuse_problems(out, problems, total)
        for name in parts:
            merge(folder / name)
        making.finish(folder, out, wanted)
    elif problems:
        sys.exit(1)  # the first process says why
    work.wait()


def stamp_of(data: ImageData, made_with: dict[str, Any], encoders: Encoders, rows: int) -> dict[str, Any]:
    first = data.parts.train.captions(torch.arange(1))
    autoencoder = encoders.autoencoder or data.autoencoder
    return {
        "format": SHARDS,
        "spec": encoders.spec(data.spec)._asdict(),
        "class_names": data.class_names,
        "counts": {name: len(part) for name, part in zip(Parts._fields, data.parts, strict=True)},
        "made_with": made_with,
        "made_from": data.fingerprint,
        "latents": autoencoder and autoencoder.described(),
        "text": encoders.text and encoders.text.described(),
        "storage": encoders.text and encoders.storage,
        "captions": first is not None,
        "rows": rows,
    }


def fill(folder: Path, source: Source, rows: int, encoders: Encoders, work: Work) -> list[str]:
    """Writes this process's shards that are not yet there; returns what was wrong with their images."""
    mine = [(number, unit) for number, unit in enumerate(units(source, rows)) if number % work.ranks == work.rank]
    merged = (folder / INDEX).exists()
    left = [(number, unit) for number, unit in mine if not merged and not done(folder, number).exists()]
    problems: list[str] = []
    if left:
        taken = read(source, torch.cat([torch.arange(unit.start, unit.stop) for _, unit in left]), problems)
        for number, unit in left:  # whose rows are encoded together, whoever does it, and whatever was done before
            write(folder, number, encoded(islice(taken, len(unit)), encoders, work), len(unit), rows)
    return problems


def everyones(problems: list[str], folder: Path, work: Work) -> list[str]:
    """What every process has found, told to every process: all must end, or none."""
    with replacing(folder / PROBLEMS.format(work.rank)) as partial:
        partial.write_text(json.dumps(problems))
    work.wait()
    return [p for rank in range(work.ranks) for p in json.loads((folder / PROBLEMS.format(rank)).read_text())]


def read(source: Source, numbers: Int[Tensor, " n"], problems: list[str]) -> Iterator[Taken]:
    """Until there is a problem; the rest is then read to find the others."""

    def take(at: range) -> tuple[Store, list[str] | None]:
        some = numbers[at.start : at.stop]
        return source.take(some), source.captions(some)

    for chunk in chunks(take, 0, len(numbers), "encoding images"):
        problems += chunk.problems
        if not problems:
            store, captions = chunk.result
            labels = [-1] * len(store) if store.labels is None else store.labels.tolist()
            some = numbers[chunk.rows.start : chunk.rows.stop].tolist()
            yield from map(Taken, some, store.pixels, labels, captions or [""] * len(store))


def encoded(taken: Iterator[Taken], encoders: Encoders, work: Work) -> Iterator[Row]:
    while some := [*islice(taken, work.at_once)]:
        numbers, pixels, labels, captions = zip(*some, strict=True)
        images = latents(torch.stack(pixels).to(work.device), numbers, encoders.autoencoder).numpy(force=True)
        rows = zip(images, labels, captions, strict=True)
        made = [{"image": image, "label": label, "caption": caption} for image, label, caption in rows]
        if encoders.text is not None:
            heard = encoders.text.features(encoders.text.tokens(captions).to(work.device))
            arrays = STORAGES[encoders.storage].pack(*heard)
            made = [row | {name: array[i] for name, array in arrays.items()} for i, row in enumerate(made)]
        yield from made


def latents(stored: Pixels | Latents, numbers: Sequence[int], autoencoder: Autoencoder | None) -> Tensor:
    """Half as many bytes as they are computed in; what is drawn of image i is the same in every process."""
    if autoencoder is None:
        return stored
    x0 = to_float(stored)
    spec = autoencoder.latents(ImageSpec(x0.shape[1], x0.shape[2], 0))
    noise = SampleNoise(key("latents"), numbers, (spec.channels, spec.size, spec.size), x0.device)
    return autoencoder.encode(x0, noise(0)).half()
