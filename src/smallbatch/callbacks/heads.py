"""Which head of a mixed prediction wins, and by how much, per log-SNR bin since the last record."""

import lightning as L
import torch
import torch.nn.functional as F
from jaxtyping import Float64
from torch import Tensor

from smallbatch.callbacks.cadence import ImagesCallback
from smallbatch.callbacks.losses import CENTRES, bins
from smallbatch.callbacks.record import Figure, record
from smallbatch.fusing import Fuse
from smallbatch.mixtures import HEADS
from smallbatch.module import DiffusionModule
from smallbatch.notation import Observed

MEASURED = [f"heads/{head}_{what}" for what in ("v_mse", "wins", "wins_raw") for head in HEADS]


class Heads(ImagesCallback):
    """Of each head: its error in v, its share of the smallest errors in v and of the smallest in the heads' own spaces,
    and what its velocity counts at the noise level nearest to the bin's centre. Predictions of one head have none.
    """

    def __init__(self, every_images: int):
        super().__init__(every_images)
        self.sums: Tensor | None = None  # (bins, 10): MEASURED, rows

    def on_step(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        if module.observed.gram is None:
            return
        rows = measured(module.observed)
        if self.sums is None:
            self.sums = rows.new_zeros(len(CENTRES), rows.shape[1])
        self.sums = self.sums.to(rows).index_add(0, bins(module.observed.logsnr), rows)
        super().on_step(trainer, module)

    def on_due(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        weights, figures = fused(module).tolist(), []
        for centre, (*totals, count), weight in zip(CENTRES, self.sums.tolist(), weights, strict=True):
            if count:
                row = zip(MEASURED, totals, strict=True)
                figures += [Figure(name, total / count, int(count), centre) for name, total in row]
                row = zip(HEADS, weight, strict=True)
                figures += [Figure(f"heads/{head}_weight", g, int(count), centre) for head, g in row]
        self.sums = None
        record(trainer, module, figures)

    def state_dict(self) -> dict[str, Tensor | None]:
        return {"sums": self.sums}

    def load_state_dict(self, state_dict: dict[str, Tensor | None]) -> None:
        self.sums = state_dict["sums"]


def measured(observed: Observed) -> Float64[Tensor, "b 10"]:
    """The columns of MEASURED, and 1. A head's own error is sigma^2, alpha^2 or 1 times its error in v."""
    in_v, logsnr = torch.diagonal(observed.gram, dim1=1, dim2=2).double(), observed.logsnr.double()
    own = in_v * torch.stack([(-logsnr).sigmoid(), logsnr.sigmoid(), torch.ones_like(logsnr)], dim=1)
    wins = [F.one_hot(error.argmin(dim=1), len(HEADS)).double() for error in (in_v, own)]
    return torch.cat([in_v, *wins, torch.ones_like(in_v[:, :1])], dim=1)


@torch.no_grad()
def fused(module: DiffusionModule) -> Tensor:
    """(bins, heads): what the velocity of each head counts."""
    (fuse,) = (part for part in module.denoiser.prediction.modules() if isinstance(part, Fuse))
    schedule = module.denoiser.schedule
    return fuse.weights(schedule(schedule.time(torch.tensor(CENTRES, device=module.device))))
