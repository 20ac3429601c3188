"""The training loss since the last record: as a mean, per log-SNR bin, with the gradient norm and the rate."""

import lightning as L
import torch
from torch import Tensor

from smallbatch.callbacks.cadence import ImagesCallback
from smallbatch.callbacks.record import Figure, record
from smallbatch.module import DiffusionModule

CENTRES = [float(centre) for centre in range(-15, 16, 2)]  # of log-SNR bins of width 2; the outer two are open


def bins(logsnr: Tensor) -> Tensor:
    """Index of the bin in which each log-SNR lies; CENTRES names them."""
    return ((logsnr - CENTRES[0] + 1) / 2).floor().long().clamp(0, len(CENTRES) - 1)


class TrainingLoss(ImagesCallback):
    def __init__(self, every_images: int):
        super().__init__(every_images)
        self.sums: Tensor | None = None  # (bins, 2): loss, rows
        self.norm: Tensor | None = None  # (2,): gradient norm, steps

    def on_step(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        seen = module.observed
        rows = torch.stack([seen.loss.double(), torch.ones_like(seen.loss, dtype=torch.float64)], dim=1)
        if self.sums is None:
            self.sums, self.norm = rows.new_zeros(len(CENTRES), 2), rows.new_zeros(2)
        self.sums = self.sums.to(rows).index_add(0, bins(seen.logsnr), rows)
        self.norm = self.norm.to(rows) + torch.stack([module.grad_norm.double(), rows.new_ones(())])
        super().on_step(trainer, module)

    def on_due(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        (loss, rows), (norm, steps) = self.sums.sum(dim=0).tolist(), self.norm.tolist()
        figures = [Figure("train/loss", loss / rows, int(rows)), Figure("train/grad_norm", norm / steps, int(steps))]
        figures.append(Figure("train/lr", trainer.optimizers[0].param_groups[0]["lr"]))
        for centre, (total, count) in zip(CENTRES, self.sums.tolist(), strict=True):
            if count:
                figures.append(Figure("train/loss", total / count, int(count), centre))
        self.sums = self.norm = None
        record(trainer, module, figures)

    def state_dict(self) -> dict[str, Tensor | None]:
        return {"sums": self.sums, "norm": self.norm}

    def load_state_dict(self, state_dict: dict[str, Tensor | None]) -> None:
        self.sums, self.norm = state_dict["sums"], state_dict["norm"]
