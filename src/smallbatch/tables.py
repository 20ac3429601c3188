"""Discrete schedules: a table of log-SNR, index i = 0..T-1 at t = (i + 1) / T."""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from smallbatch.errors import UserError
from smallbatch.notation import NoiseLevel, Time
from smallbatch.schedules import NoiseSchedule, Path, interval


class Table(NoiseSchedule):
    """Every index owns an interval of length 1/T that ends at its own time. `table` is the curve, before the shift."""

    table: Tensor
    steps: int

    @abstractmethod
    def __init__(self, path: Path, betas: Tensor, shift: float):
        super().__init__(path, shift)
        self.steps = len(betas)
        signal = (1 - betas).log().cumsum(0).exp()
        self.register_buffer("table", signal.logit().float(), persistent=False)

    def index(self, t: Time) -> Tensor:
        return interval(t, self.steps)

    def snap(self, t: Time) -> Time:
        return (self.index(t) + 1).to(t) / self.steps

    def curve(self, t: Time) -> Time:
        return self.table[self.index(t)].to(t)

    def inverse(self, logsnr: Time) -> Time:
        nearest = (self.table - logsnr[:, None]).abs().argmin(dim=1)
        return (nearest + 1).to(logsnr) / self.steps

    def before(self, level: NoiseLevel) -> NoiseLevel:
        """The level one index nearer to the data; clean data (alpha 1, sigma 0) before the first."""
        index = self.index(level.t)
        previous = self(index.to(level.t) / self.steps)
        clean = (index == 0)[:, None, None, None]
        return NoiseLevel(
            index.to(level.t) / self.steps,
            torch.where(clean, 1.0, previous.alpha),
            torch.where(clean, 0.0, previous.sigma),
        )


class LinearBetas(Table):
    """DDPM's betas, which keep their sum for any T.

    Ho et al. 2020 (2006.11239), section 4; scaled by 1000 / T as in guided-diffusion.
    """

    def __init__(self, path: Path, steps: int = 1000, first: float = 1e-4, last: float = 0.02, shift: float = 0.0):
        _at_least_one(steps)
        if last * 1000 / steps >= 1:
            raise UserError(f"schedule: {steps=} is too few for {last=}: beta would reach {last * 1000 / steps:g}")
        super().__init__(path, torch.linspace(first, last, steps, dtype=torch.float64) * 1000 / steps, shift)


class CosineBetas(Table):
    """Betas of a squared-cosine alpha_bar, at most 0.999. Nichol & Dhariwal 2021 (2102.09672), eq. 17."""

    def __init__(self, path: Path, steps: int = 1000, shift: float = 0.0):
        _at_least_one(steps)
        u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        signal = ((u + 0.008) / 1.008 * math.pi / 2).cos().square()
        super().__init__(path, (1 - signal[1:] / signal[:-1]).clamp(max=0.999), shift)


def _at_least_one(steps: int) -> None:
    if steps < 1:
        raise UserError(f"schedule: {steps=} must be at least 1")
