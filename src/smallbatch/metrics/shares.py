"""Each rank's share of the images that are judged."""

import torch

from smallbatch.data.store import Source
from smallbatch.generation import Numbers
from smallbatch.metrics import ranks
from smallbatch.metrics.looking import Stream
from smallbatch.metrics.rows import batches, spread


def share(n: int) -> Numbers:
    """This rank's numbers among 0..n-1."""
    return torch.arange(ranks.rank(), n, ranks.world_size())


def real(source: Source, n: int, batch: int) -> Stream:
    """This rank's share of n images, evenly spread over a source."""
    mine = share(n)
    taken = batches(source, spread(n, len(source))[mine], batch, "real images")
    return ((numbers, pixels) for numbers, (_, pixels) in zip(mine.split(batch), taken, strict=True))
