"""Held-out errors of the averaged weights, as means and per log-SNR bin."""

import lightning as L
from jaxtyping import Float, Int
from torch import Tensor

from smallbatch.callbacks.cadence import ImagesCallback
from smallbatch.callbacks.held_out import sums_in_bins
from smallbatch.callbacks.losses import CENTRES, bins
from smallbatch.callbacks.record import Figure, record
from smallbatch.errors import UserError
from smallbatch.module import DiffusionModule
from smallbatch.notation import Batch
from smallbatch.validation import held_out_errors, points


class Validation(ImagesCallback):
    """Measures `count` fixed points."""

    def __init__(self, every_images: int | None, count: int = 1024):
        super().__init__(every_images)
        if count < 1:
            raise UserError(f"validation.count={count} must be at least 1")
        self.count = count

    def on_due(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        logsnr = points(self.count)

        def errors(mine: Int[Tensor, " b"], batch: Batch) -> Float[Tensor, "b 3"]:
            return held_out_errors(module.denoiser, batch, mine.tolist(), logsnr[mine])

        sums = sums_in_bins(trainer, module, errors, 3, bins(logsnr), len(CENTRES))
        record(trainer, module, list(figures(sums.tolist())))


def figures(sums: list[list[float]]) -> list[Figure]:
    rows = [(None, [sum(column) for column in zip(*sums, strict=True)]), *zip(CENTRES, sums, strict=True)]
    return [
        Figure(f"val/{name}_mse", total / count, int(count), centre)
        for centre, (*totals, count) in rows
        if count
        for name, total in zip(("x0", "eps", "v"), totals, strict=True)
    ]
