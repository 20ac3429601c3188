"""Rows of a source, spread evenly over it, read in turn."""

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Int
from rich.console import Console
from rich.progress import track
from torch import Tensor

from smallbatch.data.reading import CHUNK, SLOW, chunks, refuse
from smallbatch.data.store import Source
from smallbatch.metrics.ranks import rank
from smallbatch.notation import Pixels
from smallbatch.randomness import generator


def spread(count: int, length: int) -> Int[Tensor, " count"]:
    """Of `count` even stretches of `length` rows one each, drawn: every fifth row may be of the same classes."""
    assert 0 <= count <= length, f"{count=} {length=}"
    step, rest = divmod(length, max(count, 1))
    ends = torch.arange(count + 1)
    ends = ends * step + ends * rest // max(count, 1)  # int64 also where the length is that of an endless set
    share = torch.rand(count, generator=generator(0, "spread", count, length), dtype=torch.float64)
    return ends[:-1] + (share * ends.diff()).long()


def batches(
    source: Source, rows: Int[Tensor, " n"], batch: int, title: str
) -> Iterator[tuple[Int[Tensor, " b"], Pixels]]:
    """The given rows in turn, `batch` at a time, with their pixels; of many, some are read ahead by other processes."""

    def work(at: range) -> Pixels:
        return source.take(rows[at.start : at.stop]).pixels

    def read_so_far() -> Iterator[Pixels]:
        parts = chunks(work, 0, len(rows), title)  # from SLOW rows on with a bar of its own
        hide = len(rows) > SLOW or rank() > 0
        for part in track(parts, title, -(-len(rows) // CHUNK), console=Console(stderr=True), disable=hide):
            refuse(part.problems, len(rows))
            yield part.result

    return zip(rows.split(batch), evenly(read_so_far(), batch), strict=True)


def evenly(parts: Iterable[Pixels], batch: int) -> Iterator[Pixels]:
    """The same images, `batch` at a time."""
    waiting = None
    for part in parts:
        waiting = part if waiting is None else torch.cat([waiting, part])
        *whole, waiting = waiting.split(batch)
        yield from whole
    if waiting is not None:
        yield waiting
