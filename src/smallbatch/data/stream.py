"""The endless order of training rows, and the part of it that one rank's micro-batches see."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import count
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Sampler

from smallbatch.errors import UserError
from smallbatch.notation import Mask
from smallbatch.randomness import Step, generator


class Rows(NamedTuple):
    """Which images, and which of them are mirrored."""

    indices: Int[Tensor, " b"]
    flips: Mask


class Order(ABC):
    """Which images the given rows of the whole run are."""

    @abstractmethod
    def __getitem__(self, rows: range) -> Rows: ...


class Unrepeated(Order):
    """Row j of the run is image j, as it is: for sets that never end."""

    def __getitem__(self, rows: range) -> Rows:
        return Rows(torch.arange(rows.start, rows.stop), torch.zeros(len(rows), dtype=torch.bool))


class Epochs(Order):
    """Row j of the whole run is row j % N of epoch j // N: each image once an epoch, whatever the batch."""

    def __init__(self, seed: int, length: int):
        assert length > 0, f"{length=}"
        self.seed, self.length = seed, length
        self.epoch = lru_cache(maxsize=2)(self._epoch)

    @abstractmethod
    def _epoch(self, number: int) -> Rows:
        """All N rows."""

    def __getitem__(self, rows: range) -> Rows:
        epochs = range(rows.start // self.length, -(-rows.stop // self.length))
        parts = [self._within(epoch, rows) for epoch in epochs]
        return Rows(*map(torch.cat, zip(*parts, strict=True)))

    def _within(self, epoch: int, rows: range) -> Rows:
        first = epoch * self.length
        here = slice(max(rows.start - first, 0), rows.stop - first)
        return Rows(*(column[here] for column in self.epoch(epoch)))


class Stream(Epochs):
    """Every epoch in an order of its own."""

    def __init__(self, seed: int, length: int, flip: bool):
        super().__init__(seed, length)
        self.flip = flip

    def _epoch(self, number: int) -> Rows:
        order = torch.randperm(self.length, generator=generator(self.seed, "order", number))
        coins = torch.rand(self.length, generator=generator(self.seed, "flips", number)) < 0.5 * self.flip
        return Rows(order, coins)


class ByShards(Epochs):
    """Every epoch, `window` shards after another `window`, drawn anew, and the rows of a window mixed.

    So that no more than a window must be at hand at once. `sizes` are the rows of each shard, in the order of the rows.
    """

    def __init__(self, seed: int, sizes: Sequence[int], window: int):
        super().__init__(seed, sum(sizes))
        self.ends, self.window = torch.tensor(sizes).cumsum(0), window

    def _epoch(self, number: int) -> Rows:
        drawn = generator(self.seed, "order", number)
        shards = torch.randperm(len(self.ends), generator=drawn).split(self.window)
        windows = [torch.cat([self._rows(shard) for shard in some.tolist()]) for some in shards]
        order = torch.cat([rows[torch.randperm(len(rows), generator=drawn)] for rows in windows])
        return Rows(order, torch.zeros(self.length, dtype=torch.bool))

    def _rows(self, shard: int) -> Int[Tensor, " n"]:
        return torch.arange(self.ends[shard - 1] if shard else 0, self.ends[shard])


class Repeated(Order):
    """Row j of the run is image j // times of `order`, mirrored as that one is: one image, several noise levels."""

    def __init__(self, order: Order, times: int):
        assert times > 0, f"{times=}"
        self.order, self.times = order, times

    def __getitem__(self, rows: range) -> Rows:
        images = range(rows.start // self.times, -(-rows.stop // self.times))
        first = rows.start - images.start * self.times
        here = slice(first, first + len(rows))
        return Rows(*(column.repeat_interleave(self.times)[here] for column in self.order[images]))


def micro_batch(batch: int, ranks: int, micros: int) -> int:
    """Rows of one micro-batch on one rank; `batch` counts the rows of a whole optimizer step."""
    parts = ranks * micros
    below = max(batch, 0) // parts * parts
    if batch == below > 0:
        return batch // parts
    nearest = ", ".join(str(near) for near in (below, below + parts) if near > 0)
    split = f"{ranks} {'process' if ranks == 1 else 'processes'} x {micros} micro-batch{'es' * (micros > 1)}"
    raise UserError(f"batch={batch} does not divide over {split}; nearest: {nearest}")


def whole_images(batch: int, per_image: int) -> None:
    """Refuses a batch that would cut an image's rows in two."""
    if batch % per_image:
        divisors = [rows for rows in range(1, batch + 1) if batch % rows == 0]
        below = [rows for rows in divisors if rows < per_image][-1:]
        above = [rows for rows in divisors if rows > per_image][:1]
        nearest = ", ".join(map(str, below + above))
        raise UserError(f"per_image={per_image} does not divide batch={batch}; nearest: {nearest}")


class Windows(Sampler[range]):
    """Positions in the stream of one rank's micro-batches, from optimizer step `first_step` on, for ever."""

    def __init__(self, batch: int, first_step: int = 0, rank: int = 0, ranks: int = 1, micros: int = 1):
        self.rows = micro_batch(batch, ranks, micros)
        self.batch, self.first_step = batch, first_step
        self.rank, self.ranks, self.micros = rank, ranks, micros

    def __iter__(self) -> Iterator[range]:
        for index in count(self.first_step):
            for micro in range(self.micros):
                yield self._window(index, micro)

    def _window(self, index: int, micro: int) -> range:
        first = index * self.batch
        step = Step(0, index, first, 0.0, self.rank, self.ranks, micro, self.micros)
        within = step.rows(self.rows)
        return range(first + within.start, first + within.stop)
