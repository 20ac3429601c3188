"""Loss weights: one weight per log-SNR, the same for every prediction.

`OnX0` leaves declare their weight on the x0 error; the squared gain of the prediction carries it to the output's space.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import nn

from smallbatch.errors import refuse_unless_positive
from smallbatch.notation import NoiseLevel, Observed, PerImage, PerTerm
from smallbatch.predictions import Prediction, Terms


class Weighting(nn.Module, ABC):
    """A factor on the error of every term."""

    @abstractmethod
    def forward(self, terms: Terms, level: NoiseLevel) -> PerTerm: ...

    def counts(self, prediction: Prediction, terms: Terms, level: NoiseLevel) -> PerTerm:
        """What each term's error counts in an image's loss: this factor, times the prediction's share of it."""
        factor = self(terms, level)
        return factor * prediction.shares(factor * terms.error)

    def penalty(self, level: NoiseLevel) -> PerImage | float:
        """What a weight that is learned costs. Fixed weights cost nothing."""
        return 0.0

    def observe(self, observed: Observed) -> None:
        """Called once per optimizer step, after it. Fixed weights learn nothing."""


class Plain(Weighting):
    """The unweighted error of whatever the network outputs; for `Eps`, L_simple of Ho et al. 2020 (2006.11239)."""

    def forward(self, terms: Terms, level: NoiseLevel) -> PerTerm:
        return torch.ones_like(terms.error)


class OnX0(Weighting):
    """A weight on the x0 error."""

    @abstractmethod
    def of_x0(self, logsnr: PerTerm) -> PerTerm: ...

    def forward(self, terms: Terms, level: NoiseLevel) -> PerTerm:
        return self.of_x0(level.logsnr.flatten(1)) * terms.gain.square()


class InX0(OnX0):
    """Squared error of x0."""

    def of_x0(self, logsnr: PerTerm) -> PerTerm:
        return torch.ones_like(logsnr)


class InEps(OnX0):
    """Squared error of eps: SNR times that of x0, hence also called the SNR weight."""

    def of_x0(self, logsnr: PerTerm) -> PerTerm:
        return logsnr.exp()


class InV(OnX0):
    """Squared error of v: (1 + SNR) times that of x0."""

    def of_x0(self, logsnr: PerTerm) -> PerTerm:
        return 1 + logsnr.exp()


class MinSNR(OnX0):
    """Hang et al. 2023 (2303.09556), section 3.4: min(SNR, gamma) on x0."""

    def __init__(self, gamma: float = 5.0):
        super().__init__()
        refuse_unless_positive("weighting", gamma=gamma)
        self.gamma = gamma

    def of_x0(self, logsnr: PerTerm) -> PerTerm:
        return logsnr.exp().clamp(max=self.gamma)


class TruncatedSNR(OnX0):
    """max(SNR, 1) on x0. Salimans & Ho 2022 (2202.00512), section 4."""

    def of_x0(self, logsnr: PerTerm) -> PerTerm:
        return logsnr.exp().clamp(min=1)


class SoftMinSNR(OnX0):
    """gamma SNR / (gamma + SNR) on x0: MinSNR without its corner. Crowson et al. 2024 (2401.11605).

    With gamma = data_std^-2, EDM's output is weighted by (sigma data_std)^2 / (sigma^2 + data_std^2)^2.
    """

    def __init__(self, gamma: float = 4.0):
        super().__init__()
        refuse_unless_positive("weighting", gamma=gamma)
        self.gamma = gamma

    def of_x0(self, logsnr: PerTerm) -> PerTerm:
        return self.gamma * (logsnr - math.log(self.gamma)).sigmoid()


class P2(OnX0):
    """1 / (k + SNR)^gamma on eps. Choi et al. 2022 (2204.00227)."""

    def __init__(self, k: float = 1.0, gamma: float = 1.0):
        super().__init__()
        refuse_unless_positive("weighting", k=k)
        self.k, self.gamma = k, gamma

    def of_x0(self, logsnr: PerTerm) -> PerTerm:
        return logsnr.exp() * (self.k + logsnr.exp()) ** -self.gamma


class Debias(OnX0):
    """1 / sqrt(SNR) on eps. Yu et al. 2023 (2310.08442)."""

    def of_x0(self, logsnr: PerTerm) -> PerTerm:
        return (logsnr / 2).exp()


class SigmoidWeight(OnX0):
    """sigmoid(bias - logsnr) on eps. Hoogeboom et al. 2024 (2410.19324).

    Published as an integral over log-SNR (Kingma & Gao 2023 (2303.00848)); even times weigh it by dt / dlogsnr on any
    other curve, and give exactly that integral with schedule=linear_logsnr, where -dlogsnr / dt is constant.
    """

    def __init__(self, bias: float = 2.0):
        super().__init__()
        self.bias = bias

    def of_x0(self, logsnr: PerTerm) -> PerTerm:
        return math.exp(self.bias) * (logsnr - self.bias).sigmoid()


class EDMWeight(OnX0):
    """(sigma^2 + data_std^2) / (sigma data_std)^2, in log-SNR. Karras et al. 2022 (2206.00364), table 1."""

    def __init__(self, data_std: float = 0.5):
        super().__init__()
        refuse_unless_positive("weighting", data_std=data_std)
        self.data_std = data_std

    def of_x0(self, logsnr: PerTerm) -> PerTerm:
        return logsnr.exp() + self.data_std**-2
