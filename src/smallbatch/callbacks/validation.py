"""Held-out errors of the averaged weights, as means and per log-SNR bin."""

import lightning as L
import torch

from smallbatch.callbacks.cadence import ImagesCallback
from smallbatch.callbacks.ema import averaged
from smallbatch.callbacks.losses import CENTRES, bins
from smallbatch.callbacks.record import Figure, record
from smallbatch.errors import UserError
from smallbatch.module import DiffusionModule
from smallbatch.validation import held_out_errors, points


class Validation(ImagesCallback):
    """Measures `count` fixed points, `chunk` at a time, spread over the ranks."""

    def __init__(self, every_images: int | None, count: int = 1024, chunk: int = 256):
        super().__init__(every_images)
        if count < 1:
            raise UserError(f"validation.count={count} must be at least 1")
        self.count, self.chunk = count, chunk

    def on_due(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        sums = torch.zeros(len(CENTRES), 4, dtype=torch.float64)  # x0, eps, v, points
        logsnr, data = points(self.count), trainer.datamodule
        module.eval()
        with averaged(trainer, module), trainer.precision_plugin.forward_context():
            for mine in torch.arange(trainer.global_rank, self.count, trainer.world_size).split(self.chunk):
                batch = data.held_out(mine % len(data.held_out_store), module.device)
                measured = held_out_errors(module.denoiser, batch, mine.tolist(), logsnr[mine]).double().cpu()
                rows = torch.cat([measured, torch.ones(len(mine), 1, dtype=torch.float64)], dim=1)
                sums.index_add_(0, bins(logsnr[mine]), rows)
        module.train()
        sums = trainer.strategy.reduce(sums.to(module.device), reduce_op="sum").cpu()
        record(trainer, module, list(figures(sums.tolist())))


def figures(sums: list[list[float]]) -> list[Figure]:
    rows = [(None, [sum(column) for column in zip(*sums, strict=True)]), *zip(CENTRES, sums, strict=True)]
    return [
        Figure(f"val/{name}_mse", total / count, int(count), centre)
        for centre, (*totals, count) in rows
        if count
        for name, total in zip(("x0", "eps", "v"), totals, strict=True)
    ]
