"""What the network's output means: every target is a(level) * x0 + b(level) * eps."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smallbatch.errors import refuse_unless_positive
from smallbatch.notation import Coefficient, Denoised, Image, NoiseLevel, Observed, Output, PerImage, PerTerm, Seen


class Terms(NamedTuple):
    """How far the output is from its targets, one column per loss term."""

    error: PerTerm  # mean squared error in the output's own space
    gain: PerTerm  # |d x0 estimate / d output|: turns an output error into an x0 error
    slope: PerTerm  # mean square of the error's derivative in the output, up to a constant
    pooled: PerTerm  # the same of the derivative's mean over the pixels, summed over the channels
    gram: Float[Tensor, "b k k"] | None = None  # mean products of the heads' errors in v, where there are several
    unweighted: PerImage | float = 0.0  # a further loss, which no weighting touches


def over_seen(x: Image, seen: Seen | None) -> Image:
    """x, scaled so that its mean over all pixels is the mean over the seen ones."""
    return x if seen is None else x * seen / seen.mean(dim=(2, 3), keepdim=True)


class Prediction(nn.Module, ABC):
    """Scores a network's output against the truth and reads it as a denoised image."""

    outputs: int  # c-channel maps asked of the network

    @property
    @abstractmethod
    def heads(self) -> Mapping[str, "Linear"]:
        """What its output says in so many ways, by name."""

    @abstractmethod
    def terms(self, out: Output, x0: Image, eps: Image, level: NoiseLevel, seen: Seen | None = None) -> Terms: ...

    @abstractmethod
    def shares(self, weighted: PerTerm) -> PerTerm:
        """What each weighted term counts in an image's loss."""

    @abstractmethod
    def each(self, out: Output, x_t: Image, level: NoiseLevel) -> list[Denoised]:
        """What every head says for itself."""

    @abstractmethod
    def decode(self, out: Output, x_t: Image, level: NoiseLevel) -> Denoised: ...

    def observe(self, observed: Observed) -> None:
        """Called once per optimizer step, after it. Linear heads learn nothing from it."""


class Linear(Prediction):
    """One head; leaves name the basis (a, b) of their target, all else follows."""

    outputs = 1

    @abstractmethod
    def basis(self, level: NoiseLevel) -> tuple[Coefficient, Coefficient]: ...

    @property
    def heads(self) -> Mapping[str, "Linear"]:
        return {type(self).__name__.lower(): self}

    def gain(self, level: NoiseLevel) -> Coefficient:
        """|d x0 estimate / d output|."""
        return (level.sigma / self._determinant(level)).abs()

    def terms(self, out: Output, x0: Image, eps: Image, level: NoiseLevel, seen: Seen | None = None) -> Terms:
        a, b = self.basis(level)
        residual = out - (a * x0 + b * eps)
        error = over_seen(residual.square(), seen).mean(dim=(1, 2, 3))
        pooled = over_seen(residual, seen).mean(dim=(2, 3)).square().sum(dim=1)
        return Terms(error[:, None], self.gain(level).flatten(1), error[:, None], pooled[:, None])

    def shares(self, weighted: PerTerm) -> PerTerm:
        return torch.ones_like(weighted)

    def each(self, out: Output, x_t: Image, level: NoiseLevel) -> list[Denoised]:
        return [self.decode(out, x_t, level)]

    def decode(self, out: Output, x_t: Image, level: NoiseLevel) -> Denoised:
        (a, b), det = self.basis(level), self._determinant(level)  # solve [alpha sigma; a b] [x0; eps] = [x_t; out]
        return Denoised((b * x_t - level.sigma * out) / det, (level.alpha * out - a * x_t) / det)

    def _determinant(self, level: NoiseLevel) -> Coefficient:
        a, b = self.basis(level)
        return level.alpha * b - level.sigma * a


class X0(Linear):
    """The clean image."""

    def basis(self, level: NoiseLevel) -> tuple[Coefficient, Coefficient]:
        return torch.ones_like(level.alpha), torch.zeros_like(level.sigma)


class Eps(Linear):
    """The noise. Ho et al. 2020 (2006.11239), eq. 14."""

    def basis(self, level: NoiseLevel) -> tuple[Coefficient, Coefficient]:
        return torch.zeros_like(level.alpha), torch.ones_like(level.sigma)


class V(Linear):
    """Velocity along the unit circle, on any path. Salimans & Ho 2022 (2202.00512), appendix D."""

    def basis(self, level: NoiseLevel) -> tuple[Coefficient, Coefficient]:
        return -level.unit.sigma, level.unit.alpha


class Flow(Linear):
    """Velocity of the straight path, eps - x0. Liu et al. 2022 (2209.03003), eq. 1 with time reversed."""

    def basis(self, level: NoiseLevel) -> tuple[Coefficient, Coefficient]:
        return -torch.ones_like(level.alpha), torch.ones_like(level.sigma)


class EDM(Linear):
    """Unit variance at every level for data of the given std. Karras et al. 2022 (2206.00364), eqs. 7-8."""

    def __init__(self, data_std: float = 0.5):
        super().__init__()
        refuse_unless_positive("prediction", data_std=data_std)
        self.data_std = data_std

    def basis(self, level: NoiseLevel) -> tuple[Coefficient, Coefficient]:
        scale = (level.alpha.square() * self.data_std**2 + level.sigma.square()).rsqrt()
        return level.sigma / self.data_std * scale, -level.alpha * self.data_std * scale
