"""Many rows read by several processes, in order, with a progress bar; what cannot be read is counted."""

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader, Dataset

from smallbatch.data.store import Source, Store
from smallbatch.errors import UserError
from smallbatch.notation import ImageSpec

CHUNK = 128  # rows handed to a process at a time
SLOW = 2000  # as many rows are worth several processes and a progress bar


class Chunk(NamedTuple):
    """What `work` made of some rows; nothing where one of them had a problem."""

    rows: range
    result: Any
    problems: list[str]


class Chunks(Dataset[Chunk]):
    def __init__(self, work: Callable[[range], Any], first: int, length: int):
        self.work, self.length = work, length
        self.starts = range(first, length, CHUNK)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, number: int) -> Chunk:
        rows = range(self.starts[number], min(self.starts[number] + CHUNK, self.length))
        try:
            return Chunk(rows, self.work(rows), [])
        except UserError:
            return Chunk(rows, None, [problem for row in rows for problem in self._problem(row)])

    def _problem(self, row: int) -> Iterator[str]:
        try:
            self.work(range(row, row + 1))
        except UserError as error:
            yield str(error)


def chunks(work: Callable[[range], Any], first: int, length: int, title: str) -> Iterator[Chunk]:
    """`work` on all rows from `first` on."""
    many = length - first > SLOW
    loader = DataLoader(
        Chunks(work, first, length),
        batch_size=None,
        collate_fn=_same,
        num_workers=processes() if many else 0,
        multiprocessing_context="fork" if many else None,  # what is read need not be picklable
        worker_init_fn=deaf,
        generator=torch.Generator(),  # else the loader draws from the global one
    )
    hide = not many or rank_zero_only.rank > 0
    return track(loader, title, len(loader), console=Console(stderr=True), disable=hide)


def _same(chunk: Chunk) -> Chunk:
    return chunk


def processes() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, 16)


def deaf(worker: int) -> None:
    """Leaves Ctrl-C and requests to stop to the process that owns this one, which ends it in its own time."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def take(source: Source) -> Callable[[range], Store]:
    return lambda rows: source.take(torch.arange(rows.start, rows.stop))


def read(source: Source, spec: ImageSpec) -> Store:
    """All of it, in memory."""
    pixels = torch.empty(len(source), spec.channels, spec.size, spec.size, dtype=torch.uint8)
    labels = torch.empty(len(source), dtype=torch.long) if spec.classes else None
    problems = []
    for rows, part, found in chunks(take(source), 0, len(source), "reading images"):
        problems += found
        if part is not None:
            pixels[rows.start : rows.stop] = part.pixels
            if labels is not None:
                labels[rows.start : rows.stop] = part.labels
    refuse(problems, len(source))
    return Store(pixels, labels)


def refuse(problems: list[str], count: int) -> None:
    """One line for all problems."""
    if problems:
        others = f" (and {len(problems) - 1} more of {count} images)" if len(problems) > 1 else ""
        raise UserError(problems[0] + others)
