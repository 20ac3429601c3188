"""The learned object: a network, the schedule it was trained on, and what its output means."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from smallbatch.notation import Condition, Denoise, Denoised, Image, ImageSpec, Keep, NoiseLevel, Output, Time
from smallbatch.predictions import Prediction
from smallbatch.schedules import NoiseSchedule


class Clock(ABC):
    """What the network hears as time."""

    @abstractmethod
    def __call__(self, level: NoiseLevel) -> Time: ...


class Continuous(Clock):
    """scale * t."""

    def __init__(self, scale: float = 1000.0):
        self.scale = scale

    def __call__(self, level: NoiseLevel) -> Time:
        return self.scale * level.t


class Steps(Clock):
    """The index 0..T-1 of a table, guided-diffusion's way."""

    def __init__(self, steps: int = 1000):
        self.steps = steps

    def __call__(self, level: NoiseLevel) -> Time:
        return ((self.steps * level.t).round() - 1).clamp(min=0)


class LogSNR(Clock):
    """scale * ln(sigma / alpha); EDM's c_noise is scale 1/4. Karras et al. 2022 (2206.00364), table 1.

    Sinusoidal embeddings count in hundreds: scale 100 suits them.
    """

    def __init__(self, scale: float = 100.0):
        self.scale = scale

    def __call__(self, level: NoiseLevel) -> Time:
        return -self.scale / 2 * level.logsnr.flatten()


class Denoiser(nn.Module):
    """Builds its network from what the prediction asks and the data set is.

    `data_std` scales the network's input to unit variance (Karras et al. 2022 (2206.00364), c_in); None feeds x_t.
    """

    def __init__(
        self,
        network: Callable[[ImageSpec, int], nn.Module],
        schedule: NoiseSchedule,
        prediction: Prediction,
        clock: Clock,
        spec: ImageSpec,
        data_std: float | None = None,
    ):
        super().__init__()
        self.network = network(spec, prediction.outputs)
        self.schedule, self.prediction, self.clock = schedule, prediction, clock
        self.spec, self.data_std = spec, data_std

    def forward(self, x_t: Image, level: NoiseLevel, condition: Condition, keep: Keep | None = None) -> Output:
        """The network's raw output, in float32 whatever autocast makes of it."""
        if self.data_std is not None:
            x_t = x_t * (level.alpha.square() * self.data_std**2 + level.sigma.square()).rsqrt()
        return self.network(x_t, self.clock(level), condition, keep).to(x_t.dtype)

    def denoise(self, x_t: Image, level: NoiseLevel, condition: Condition) -> Denoised:
        return self.prediction.decode(self(x_t, level, condition), x_t, level)


def guided(
    denoiser: Denoiser, condition: Condition, scale: float, interval: tuple[float, float] = (-torch.inf, torch.inf)
) -> Denoise:
    """Classifier-free guidance inside an interval of log-SNR. Ho & Salimans 2022 (2207.12598), eq. 6, scale = 1 + w.

    The interval: Kynkäänniemi et al. 2024 (2404.07724). The variance is the conditional branch's.
    """
    if scale == 1:
        return partial(denoiser.denoise, condition=condition)
    low, high = interval

    def denoise(x_t: Image, level: NoiseLevel) -> Denoised:
        told = denoiser.denoise(x_t, level, condition)
        inside = (low <= level.logsnr) & (level.logsnr <= high)
        if not inside.any():
            return told
        everyone = torch.ones(len(x_t), dtype=torch.bool, device=x_t.device)
        untold = denoiser.denoise(x_t, level, denoiser.network.forget(condition, everyone))
        weight = torch.where(inside, scale, 1.0)
        return Denoised(torch.lerp(untold.x0, told.x0, weight), torch.lerp(untold.eps, told.eps, weight), told.variance)

    return denoise


def clipped(denoise: Denoise, bound: float = 1.0) -> Denoise:
    """Keeps the image estimate in range and restates the noise to match. Ho et al. 2020 (2006.11239), section 3.2."""

    def inner(x_t: Image, level: NoiseLevel) -> Denoised:
        free = denoise(x_t, level)
        return level.unmix(x_t, free.x0.clamp(-bound, bound))._replace(variance=free.variance)

    return inner
