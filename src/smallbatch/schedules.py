"""Noise schedules: a log-SNR curve over time, and a path that turns log-SNR into scales of signal and noise."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from smallbatch.errors import UserError
from smallbatch.notation import NoiseLevel, Time

Scales = tuple[Tensor, Tensor]  # alpha, sigma


class Path(ABC):
    """Where x_t = alpha * x0 + sigma * eps lies for a given log-SNR."""

    @abstractmethod
    def __call__(self, logsnr: Time) -> Scales: ...


class VariancePreserving(Path):
    """alpha^2 + sigma^2 = 1."""

    def __call__(self, logsnr: Time) -> Scales:
        return logsnr.sigmoid().sqrt(), (-logsnr).sigmoid().sqrt()


class VarianceExploding(Path):
    """alpha = 1."""

    def __call__(self, logsnr: Time) -> Scales:
        return torch.ones_like(logsnr), (-logsnr / 2).exp()


class Straight(Path):
    """alpha + sigma = 1."""

    def __call__(self, logsnr: Time) -> Scales:
        return (logsnr / 2).sigmoid(), (-logsnr / 2).sigmoid()


class NoiseSchedule(nn.Module, ABC):
    """Maps time to a noise level; log-SNR falls from data (t = 0) to noise (t = 1)."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path

    @abstractmethod
    def logsnr(self, t: Time) -> Time: ...

    @abstractmethod
    def time(self, logsnr: Time) -> Time:
        """Inverse of `logsnr`; a log-SNR beyond the schedule's ends gives the nearest end."""

    def snap(self, t: Time) -> Time:
        """The time that a table really stands at; continuous schedules stand at t."""
        return t

    def forward(self, t: Time) -> NoiseLevel:
        alpha, sigma = self.path(self.logsnr(t))
        return NoiseLevel(self.snap(t), alpha[:, None, None, None], sigma[:, None, None, None])


class Cosine(NoiseSchedule):
    """Cosine curve, shifted by 2 ln(64 / size) for larger images. Hoogeboom et al. 2023 (2301.11093), eqs. 1, 3."""

    def __init__(self, path: Path, shift: float = 0.0, bound: float = 15.0):
        super().__init__(path)
        self.shift, self.bound = shift, bound

    def logsnr(self, t: Time) -> Time:
        angle = t.clamp(1e-4, 1 - 1e-4) * math.pi / 2  # float32 tan(pi/2) is negative
        return (self.shift - 2 * angle.tan().log()).clamp(-self.bound, self.bound)

    def time(self, logsnr: Time) -> Time:
        return 2 / math.pi * ((self.shift - logsnr) / 2).exp().atan()


class Logistic(NoiseSchedule):
    """sigma / alpha = t / (1 - t); on the straight path this is rectified flow. Liu et al. 2022 (2209.03003), eq. 1."""

    def __init__(self, path: Path, bound: float = 15.0):
        super().__init__(path)
        self.bound = bound

    def logsnr(self, t: Time) -> Time:
        return (-2 * t.logit()).clamp(-self.bound, self.bound)

    def time(self, logsnr: Time) -> Time:
        return (-logsnr / 2).sigmoid()


class LogLinear(NoiseSchedule):
    """ln(sigma / alpha) rises in a straight line; exploding variance makes it EDM's axis.

    Karras et al. 2022 (2206.00364), table 1: sigma from 0.002 to 80.
    """

    def __init__(self, path: Path, sigma_min: float = 0.002, sigma_max: float = 80.0):
        super().__init__(path)
        if not 0 < sigma_min < sigma_max:
            raise UserError(f"schedule: {sigma_min=} must lie above 0 and below {sigma_max=}")
        self.start, self.end = -2 * math.log(sigma_min), -2 * math.log(sigma_max)

    def logsnr(self, t: Time) -> Time:
        return torch.lerp(torch.full_like(t, self.start), torch.full_like(t, self.end), t)

    def time(self, logsnr: Time) -> Time:
        return ((logsnr - self.start) / (self.end - self.start)).clamp(0, 1)


class LinearBetas(NoiseSchedule):
    """DDPM's table, index i = 0..T-1 at t = (i + 1) / T; betas keep their sum for any T.

    Ho et al. 2020 (2006.11239), section 4; scaled by 1000 / T as in guided-diffusion.
    """

    def __init__(self, path: Path, steps: int = 1000, first: float = 1e-4, last: float = 0.02):
        super().__init__(path)
        if steps < 1:
            raise UserError(f"schedule: {steps=} must be at least 1")
        if last * 1000 / steps >= 1:
            raise UserError(f"schedule: {steps=} is too few for {last=}: beta would reach {last * 1000 / steps:g}")
        self.steps = steps
        betas = torch.linspace(first, last, steps, dtype=torch.float64) * 1000 / steps
        signal = (1 - betas).log().cumsum(0).exp()
        self.register_buffer("table", signal.logit().float(), persistent=False)

    def index(self, t: Time) -> Tensor:
        """Every index owns an interval of length 1/T that ends at its own time; the margin absorbs rounding."""
        return (t * self.steps - 1e-3).ceil().long().clamp(1, self.steps) - 1

    def snap(self, t: Time) -> Time:
        return (self.index(t) + 1).to(t) / self.steps

    def logsnr(self, t: Time) -> Time:
        return self.table[self.index(t)].to(t)

    def time(self, logsnr: Time) -> Time:
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
