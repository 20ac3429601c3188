"""Noise schedules: a log-SNR curve over time, and a path that turns log-SNR into scales of signal and noise."""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Int
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
    """Maps time to a noise level; log-SNR falls from data (t = 0) to noise (t = 1).

    `shift` moves the whole curve in log-SNR: 2 ln(64 / size) for larger images, Hoogeboom et al. 2023 (2301.11093),
    eq. 3; -2 ln k on the logistic curve is t' = k t / (1 + (k - 1) t), Esser et al. 2024 (2403.03206), eq. 23.
    """

    steps: int | None = None  # of a table; None: continuous

    def __init__(self, path: Path, shift: float = 0.0):
        super().__init__()
        self.path, self.shift = path, shift

    @abstractmethod
    def curve(self, t: Time) -> Time:
        """log-SNR before the shift."""

    @abstractmethod
    def inverse(self, logsnr: Time) -> Time:
        """Time on the curve; a log-SNR beyond the curve's ends gives the nearest end."""

    def logsnr(self, t: Time) -> Time:
        return self.curve(t) + self.shift

    def time(self, logsnr: Time) -> Time:
        return self.inverse(logsnr - self.shift)

    def snap(self, t: Time) -> Time:
        """The time that a table really stands at; continuous schedules stand at t."""
        return t

    def forward(self, t: Time) -> NoiseLevel:
        alpha, sigma = self.path(self.logsnr(t))
        return NoiseLevel(self.snap(t), alpha[:, None, None, None], sigma[:, None, None, None])


def interval(t: Time, count: int) -> Int[Tensor, " b"]:
    """Which of `count` even parts of time t lies in, from 0. Each owns its end; the margin absorbs rounding."""
    return (t * count - 1e-3).ceil().long().clamp(1, count) - 1


class Cosine(NoiseSchedule):
    """alpha / sigma = cot(pi t / 2). Hoogeboom et al. 2023 (2301.11093), eq. 1."""

    def __init__(self, path: Path, bound: float = 15.0, shift: float = 0.0):
        super().__init__(path, shift)
        self.bound = bound

    def curve(self, t: Time) -> Time:
        angle = t.clamp(1e-4, 1 - 1e-4) * math.pi / 2  # float32 tan(pi/2) is negative
        return (-2 * angle.tan().log()).clamp(-self.bound, self.bound)

    def inverse(self, logsnr: Time) -> Time:
        return 2 / math.pi * (-logsnr / 2).exp().atan()


class Logistic(NoiseSchedule):
    """sigma / alpha = t / (1 - t); on the straight path this is rectified flow. Liu et al. 2022 (2209.03003), eq. 1."""

    def __init__(self, path: Path, bound: float = 15.0, shift: float = 0.0):
        super().__init__(path, shift)
        self.bound = bound

    def curve(self, t: Time) -> Time:
        return (-2 * t.logit()).clamp(-self.bound, self.bound)

    def inverse(self, logsnr: Time) -> Time:
        return (-logsnr / 2).sigmoid()


class Sigmoid(NoiseSchedule):
    """alpha^2 falls like a stretch of the sigmoid, from 1 to 0 on the unit circle. Chen 2023 (2301.10972), algorithm 1.

    Differences of sigmoids are written as ratios of sinh, which do not cancel near the ends.
    """

    def __init__(
        self,
        path: Path,
        start: float = -3.0,
        end: float = 3.0,
        tau: float = 1.0,
        bound: float = 15.0,
        shift: float = 0.0,
    ):
        super().__init__(path, shift)
        if not (start < end and tau > 0):
            raise UserError(f"schedule: {start=} must lie below {end=}, and {tau=} above 0")
        self.half, self.bound = (end - start) / (2 * tau), bound
        self.centre = math.log(math.cosh(start / (2 * tau)) / math.cosh(end / (2 * tau)))

    def curve(self, t: Time) -> Time:
        signal, noise = (self.half * (1 - t)).sinh(), (self.half * t).sinh()
        return (signal.log() - noise.log() + self.centre).clamp(-self.bound, self.bound)

    def inverse(self, logsnr: Time) -> Time:
        snr = (logsnr - self.centre).exp()
        rise = 2 * math.sinh(self.half) / (math.exp(-self.half) + snr)
        return (rise.log1p() / (2 * self.half)).clamp(max=1)


class LogLinear(NoiseSchedule):
    """ln(sigma / alpha) rises in a straight line; exploding variance makes it EDM's axis.

    Karras et al. 2022 (2206.00364), table 1: sigma, here sigma / alpha, from 0.002 to 80.
    """

    def __init__(self, path: Path, sigma_min: float = 0.002, sigma_max: float = 80.0, shift: float = 0.0):
        super().__init__(path, shift)
        if not 0 < sigma_min < sigma_max:
            raise UserError(f"schedule: {sigma_min=} must lie above 0 and below {sigma_max=}")
        self.start, self.end = -2 * math.log(sigma_min), -2 * math.log(sigma_max)

    def curve(self, t: Time) -> Time:
        return torch.lerp(torch.full_like(t, self.start), torch.full_like(t, self.end), t)

    def inverse(self, logsnr: Time) -> Time:
        return ((logsnr - self.start) / (self.end - self.start)).clamp(0, 1)
