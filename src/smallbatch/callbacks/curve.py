"""When the budget is spent, the averaged weights' held-out loss at every time of the schedule: loss_curve.csv."""

from pathlib import Path

import lightning as L
import torch

from smallbatch import curves
from smallbatch.callbacks.cadence import ImagesCallback
from smallbatch.callbacks.ema import averaged
from smallbatch.errors import UserError
from smallbatch.module import DiffusionModule


class LossCurve(ImagesCallback):
    """Measures `points` held-out points, `chunk` at a time, spread over the ranks. None: measures nothing."""

    def __init__(self, points: int | None = 2048, chunk: int = 256):
        super().__init__(every_images=None)
        if points is not None and points < 1:
            raise UserError(f"curve.points={points} must be at least 1, or null for no loss curve")
        self.points, self.chunk = points, chunk

    def due(self, module: DiffusionModule) -> bool:
        return self.points is not None and super().due(module)

    def on_due(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        schedule, data = module.denoiser.schedule, trainer.datamodule
        rows = curves.rows_of(schedule, self.points)
        sums = torch.zeros(rows, 2, dtype=torch.float64)  # loss, points
        module.eval()
        with averaged(trainer, module), trainer.precision_plugin.forward_context():
            for mine in torch.arange(trainer.global_rank, self.points, trainer.world_size).split(self.chunk):
                batch = data.held_out(mine % len(data.held_out_store), module.device)
                row = curves.row_of(mine, self.points, rows)
                t = curves.middle(row, rows).to(module.device)
                loss = curves.measure(module.denoiser, module.objective.weighting, batch, mine.tolist(), t)
                sums.index_add_(0, row, torch.stack([loss.double().cpu(), torch.ones(len(mine)).double()], dim=1))
        module.train()
        sums = trainer.strategy.reduce(sums.to(module.device), reduce_op="sum").cpu()
        if trainer.is_global_zero:
            path = Path(trainer.default_root_dir) / "loss_curve.csv"
            curves.write(curves.curve(schedule, *sums.unbind(dim=1)), path)
