"""Making a sharded store: images to latents and captions to features, once, by several processes, and going on where it
was killed.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from smallbatch.data import making
from smallbatch.data.module import ImageData, Parts
from smallbatch.data.reading import chunks
from smallbatch.data.shard_rows import INDEX, Row
from smallbatch.data.stamp import SHARDS
from smallbatch.data.store import Source, Store
from smallbatch.files import sync
from smallbatch.latents.autoencoder import Autoencoder
from smallbatch.notation import ImageSpec
from smallbatch.randomness import SampleNoise, key
from smallbatch.text.encoder import TextEncoder
from smallbatch.text.storage import STORAGES

OVERHEAD = 512  # bytes of a row beside image and text, at most


class Encoders(NamedTuple):
    """What makes latents and features; None: pixels stay pixels, captions are kept as they are, to be heard later."""

    autoencoder: Autoencoder | None
    text: TextEncoder | None
    storage: str  # of the features

    def spec(self, images: ImageSpec) -> ImageSpec:
        kept = images._replace(low_size=None, text=None)
        return kept if self.autoencoder is None else self.autoencoder.latents(kept)

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
    """Rows as they were read: of which numbers, and what is said of each."""

    numbers: Int[Tensor, " n"]
    store: Store
    captions: list[str] | None


def encode(
    data: ImageData, made_with: dict[str, Any], encoders: Encoders, out: Path, shard_bytes: int, work: Work
) -> None:
    """`out` appears whole or not at all. Every process must call it; row i is the same however many there are."""
    encoders.prepare()
    size = encoders.bytes(data.spec)
    wanted = stamp_of(data, made_with, encoders, rows=max(1, shard_bytes // size))
    if making.there(out, wanted):
        return
    parts = dict(zip(Parts._fields, data.parts, strict=True))
    if work.rank == 0:
        making.begin(out, wanted, size * sum(map(len, parts.values())))
    work.wait()
    folder = out.with_name(f".partial.{out.name}")
    problems = [p for name, part in parts.items() for p in fill(folder / name, part, wanted["rows"], encoders, work)]
    making.refuse_problems(out, problems, sum(map(len, parts.values())))
    work.wait()
    if work.rank == 0:
        for name in parts:
            merge(folder / name)
        making.finish(folder, out, wanted)
    work.wait()


def stamp_of(data: ImageData, made_with: dict[str, Any], encoders: Encoders, rows: int) -> dict[str, Any]:
    first = data.parts.train.captions(torch.arange(1))
    return {
        "format": SHARDS,
        "spec": encoders.spec(data.spec)._asdict(),
        "class_names": data.class_names,
        "counts": {name: len(part) for name, part in zip(Parts._fields, data.parts, strict=True)},
        "made_with": made_with,
        "made_from": data.fingerprint,
        "latents": encoders.autoencoder and encoders.autoencoder.described(),
        "text": encoders.text and encoders.text.described(),
        "storage": encoders.text and encoders.storage,
        "captions": first is not None,
        "rows": rows,
    }


def units(source: Source, rows: int) -> list[range]:
    """The rows of every shard."""
    return [range(first, min(first + rows, len(source))) for first in range(0, len(source), rows)]


def fill(folder: Path, source: Source, rows: int, encoders: Encoders, work: Work) -> list[str]:
    """Writes this process's shards that are not yet there; returns what was wrong with their images."""
    mine = [(number, unit) for number, unit in enumerate(units(source, rows)) if number % work.ranks == work.rank]
    left = [(number, unit) for number, unit in mine if not done(folder, number).exists()]
    problems: list[str] = []
    if left:
        taken = read(source, torch.cat([torch.arange(unit.start, unit.stop) for _, unit in left]), problems)
        made = (row for some in taken if not problems for row in encoded(some, encoders, work))
        for number, unit in left:
            found = [*islice(made, len(unit))]
            if not problems:
                write(folder, number, found, rows)
    return problems


def done(folder: Path, number: int) -> Path:
    """LitData's list of one writer's shards; here of one shard."""
    return folder / f"{number}.{INDEX}"


def read(source: Source, numbers: Int[Tensor, " n"], problems: list[str]) -> Iterator[Taken]:
    def take(at: range) -> Taken:
        some = numbers[at.start : at.stop]
        return Taken(some, source.take(some), source.captions(some))

    for chunk in chunks(take, 0, len(numbers), "encoding images"):
        problems += chunk.problems
        if chunk.result is not None:
            yield chunk.result


def encoded(taken: Taken, encoders: Encoders, work: Work) -> Iterator[Row]:
    for at in torch.arange(len(taken.numbers)).split(work.at_once):
        store = taken.store.take(at).to(work.device)
        captions = None if taken.captions is None else [taken.captions[i] for i in at.tolist()]
        images = latents(store, taken.numbers[at], encoders.autoencoder)
        labels = [-1] * len(at) if store.labels is None else store.labels.tolist()
        rows = zip(images.numpy(force=True), labels, captions or [""] * len(at), strict=True)
        made = [{"image": image, "label": label, "caption": caption} for image, label, caption in rows]
        if encoders.text is not None:
            heard = encoders.text.features(encoders.text.tokens(captions).to(work.device))
            arrays = STORAGES[encoders.storage].pack(*heard)
            made = [row | {name: array[i] for name, array in arrays.items()} for i, row in enumerate(made)]
        yield from made


def latents(store: Store, numbers: Int[Tensor, " n"], autoencoder: Autoencoder | None) -> Tensor:
    """Half as many bytes as they are computed in; what is drawn of image i is the same in every process."""
    if autoencoder is None:
        return store.pixels
    x0 = store.batch.x0
    spec = autoencoder.latents(ImageSpec(x0.shape[1], x0.shape[2], 0))
    noise = SampleNoise(key("latents"), numbers.tolist(), (spec.channels, spec.size, spec.size), x0.device)
    return autoencoder.encode(x0, noise(0)).half()


def write(folder: Path, number: int, found: list[Row], rows: int) -> None:
    """One shard of at most so many rows, then its list: with that it is done."""
    from litdata.streaming.writer import BinaryWriter  # takes seconds

    partial = folder / f".partial.{number}"
    os.environ["DATA_OPTIMIZER_GLOBAL_RANK"] = str(number)  # how LitData tells its writers apart
    try:
        with redirect_stdout(StringIO()):  # it says which formats it found
            writer = BinaryWriter(str(partial), chunk_size=rows)
            for at, row in enumerate(found):
                writer.add_item(at, row)
            writer.done()
    finally:
        del os.environ["DATA_OPTIMIZER_GLOBAL_RANK"]
    names = sorted((path.name for path in partial.iterdir()), key=lambda name: name.endswith(INDEX))
    for name in names:
        sync(partial / name)
        (partial / name).replace(folder / name)
        sync(folder)
    partial.rmdir()


def merge(folder: Path) -> None:
    """One list of all shards, in the order of the rows. LitData removes those that it reads: it is given copies."""
    from litdata.streaming.writer import BinaryWriter

    partial = folder / ".partial.merged"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    lists = [*folder.glob(f"*.{INDEX}")]
    for one in lists:
        shutil.copy(one, partial)
    BinaryWriter(str(partial), chunk_size=1)._merge_no_wait()  # `merge` waits for lists of as many processes as train
    sync(partial / INDEX)
    (partial / INDEX).replace(folder / INDEX)
    for one in lists:
        one.unlink()
    shutil.rmtree(partial)
