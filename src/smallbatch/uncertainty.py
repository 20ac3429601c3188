"""Weights that learn how large the error is at every noise level and divide by it, so that all levels count alike."""

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from smallbatch.errors import UserError
from smallbatch.notation import NoiseLevel, Observed, PerImage, PerTerm
from smallbatch.predictions import Terms
from smallbatch.randomness import generator
from smallbatch.running import Running, interpolate
from smallbatch.weightings import Weighting


class Normalised(Weighting):
    """`base` over exp(u), the error that it leads one to expect at a log-SNR; all columns of an image share u."""

    def __init__(self, base: Weighting):
        super().__init__()
        if isinstance(base, Normalised):
            raise UserError(f"weighting: base={type(base).__name__} divides by its own error: choose a fixed weight")
        self.base = base

    @abstractmethod
    def u(self, logsnr: PerImage) -> PerImage:
        """Log of the expected error under `base`; 0 at first."""

    def forward(self, terms: Terms, level: NoiseLevel) -> PerTerm:
        return self.base(terms, level) * (-self.u(level.logsnr.flatten()))[:, None].exp()


class Uncertainty(Normalised):
    """error / exp(u) + u: at its minimum exp(u) is the expected error. Karras et al. 2023 (2312.02696), config C.

    After the weights of tasks, Kendall et al. 2018 (1705.07115). u is linear in random Fourier features of
    ln(sigma / alpha) / 4, as there, but its coefficients are free and start at 0: training begins as with `base`.
    """

    frequency: Tensor
    phase: Tensor

    def __init__(self, base: Weighting, features: int = 128):
        super().__init__(base)
        if features < 1:
            raise UserError(f"weighting: {features=} must be at least 1")
        fixed = generator("Fourier features of the log-SNR")  # the global RNG is not seeded yet where this is built
        self.register_buffer("frequency", 2 * math.pi * torch.randn(features, generator=fixed))
        self.register_buffer("phase", 2 * math.pi * torch.rand(features, generator=fixed))
        self.coefficients = nn.Parameter(torch.zeros(features))

    def u(self, logsnr: PerImage) -> PerImage:
        angle = torch.outer(-logsnr.to(self.phase) / 8, self.frequency) + self.phase
        return math.sqrt(2) * (angle.cos() * self.coefficients).sum(dim=1)  # autocast would round a matrix product

    def penalty(self, level: NoiseLevel) -> PerImage:
        return self.u(level.logsnr.flatten())


class UncertaintyBinned(Normalised):
    """exp(u) in closed form, for batches too small to learn it from: the running mean of the error in log-SNR bins.

    ln of the mean runs straight between the centres of `bins` over `low`..`high`, level beyond. 1 is the mean at first
    and counts as `prior_rows` rows. There is nothing to learn by gradient, hence no penalty.
    """

    def __init__(
        self,
        base: Weighting,
        bins: int = 32,
        low: float = -16.0,
        high: float = 16.0,
        halflife_images: float = 50_000,
        prior_rows: float = 0.1,
    ):
        super().__init__(base)
        if bins < 2 or low >= high:
            raise UserError(f"weighting: {bins=} must be at least 2, and {low=} lie below {high=}")
        if prior_rows <= 0:
            raise UserError(f"weighting: {prior_rows=} must be above 0: a bin that saw nothing needs it")
        self.low, self.width = low, (high - low) / bins
        self.mean_error = Running(bins, halflife_images, torch.ones(bins), prior_rows)

    def u(self, logsnr: PerImage) -> PerImage:
        place = (logsnr - self.low) / self.width - 0.5  # 0 at the first bin's centre
        return interpolate(self.mean_error.mean.log()[:, None], place)[:, 0]

    def observe(self, observed: Observed) -> None:
        """Nothing has moved since the step: what it divided by is known, and the error under `base` with it."""
        bin = ((observed.logsnr - self.low) / self.width).long().clamp(0, self.mean_error.bins - 1)
        self.mean_error.update(bin, observed.weighted * self.u(observed.logsnr).exp())
