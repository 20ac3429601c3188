"""Held-out points measured with the averaged weights, spread over the ranks and summed in bins."""

from collections.abc import Callable

import lightning as L
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from smallbatch.callbacks.ema import averaged
from smallbatch.module import DiffusionModule
from smallbatch.notation import Batch

POINTS, PIXELS = 256, 2**20  # at once, whichever is fewer

Measure = Callable[[Int[Tensor, " b"], Batch], Float[Tensor, "b n"]]


def sums_in_bins(
    trainer: L.Trainer, module: DiffusionModule, measure: Measure, columns: int, bin: Int[Tensor, " points"], bins: int
) -> Float64[Tensor, "bins n_and_count"]:
    """Point i is the held-out image i, over and over; `measure` takes the points' numbers and their images.

    The sums of its columns, and how many points fell into the bin.
    """
    data, sums = trainer.datamodule, torch.zeros(bins, columns + 1, dtype=torch.float64)
    chunk = min(POINTS, max(1, PIXELS // data.spec.size**2))
    module.eval()
    with averaged(trainer, module), trainer.precision_plugin.forward_context():
        for mine in torch.arange(trainer.global_rank, len(bin), trainer.world_size).split(chunk):
            batch = data.around(mine, module.device)
            measured = measure(mine, batch).double().cpu()
            sums.index_add_(0, bin[mine], torch.cat([measured, torch.ones_like(measured[:, :1])], dim=1))
    module.train()
    return trainer.strategy.reduce(sums.to(module.device), reduce_op="sum").cpu()
