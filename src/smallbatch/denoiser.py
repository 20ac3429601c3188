"""The learned object: a network, the schedule it was trained on, and what its output means."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import nn

from smallbatch.notation import Condition, Denoised, Image, ImageSpec, Keep, NoiseLevel, Output, Time
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
    """scale times the index 0..T-1 of a table, guided-diffusion's way; improved-diffusion has scale 1000 / T."""

    def __init__(self, steps: int = 1000, scale: float = 1.0):
        self.steps, self.scale = steps, scale

    def __call__(self, level: NoiseLevel) -> Time:
        return self.scale * ((self.steps * level.t).round() - 1).clamp(min=0)


class LogSNR(Clock):
    """scale * ln(sigma / alpha); EDM's c_noise is scale 1/4. Karras et al. 2022 (2206.00364), table 1.

    Sinusoidal embeddings count in hundreds: scale 100 suits them.
    """

    def __init__(self, scale: float = 100.0):
        self.scale = scale

    def __call__(self, level: NoiseLevel) -> Time:
        return -self.scale / 2 * level.logsnr.flatten()


class Denoiser(nn.Module):
    """Builds its network from what the prediction asks and the data set is. Its spec is of what the network hears.

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
        heard = self.network
        self.spec = spec._replace(classes=heard.classes, low_size=heard.low_size, text=heard.text)
        self.data_std = data_std

    def forward(self, x_t: Image, level: NoiseLevel, condition: Condition, keep: Keep | None = None) -> Output:
        """The network's raw output, in float32 whatever autocast makes of it."""
        if self.data_std is not None:
            x_t = x_t * (level.alpha.square() * self.data_std**2 + level.sigma.square()).rsqrt()
        return self.network(x_t, self.clock(level), condition, keep).to(x_t.dtype)

    def denoise(self, x_t: Image, level: NoiseLevel, condition: Condition) -> Denoised:
        return self.prediction.decode(self(x_t, level, condition), x_t, level)
