"""When the budget is spent, the averaged weights' held-out loss at every time of the schedule: loss_curve.csv."""

from pathlib import Path

import lightning as L
import torch
from jaxtyping import Float, Int
from torch import Tensor

from smallbatch import curves
from smallbatch.callbacks.cadence import ImagesCallback
from smallbatch.callbacks.held_out import sums_in_bins
from smallbatch.errors import UserError
from smallbatch.module import DiffusionModule
from smallbatch.notation import Batch


class LossCurve(ImagesCallback):
    """Measures `points` held-out points. None: measures nothing."""

    def __init__(self, points: int | None = 2048):
        super().__init__(every_images=None)
        if points is not None and points < 1:
            raise UserError(f"curve.points={points} must be at least 1, or null for no loss curve")
        self.points = points

    def due(self, module: DiffusionModule) -> bool:
        return self.points is not None and super().due(module)

    def on_due(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        schedule = module.denoiser.schedule
        rows = curves.rows_of(schedule, self.points)
        row = curves.row_of(torch.arange(self.points), self.points, rows)

        def losses(mine: Int[Tensor, " b"], batch: Batch) -> Float[Tensor, "b 1"]:
            t = curves.middle(row[mine], rows).to(module.device)
            return curves.measure(module.denoiser, module.objective.weighting, batch, mine.tolist(), t)[:, None]

        sums = sums_in_bins(trainer, module, losses, 1, row, rows)
        if trainer.is_global_zero:
            path = Path(trainer.default_root_dir) / "loss_curve.csv"
            curves.write(curves.curve(schedule, *sums.unbind(dim=1)), path)
