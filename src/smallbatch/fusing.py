"""How the heads of a mixed prediction are fused: what each of x0, eps and v counts at a noise level.

All on the unit circle. There every head says a velocity, v_x0 = (alpha x_t - x0) / sigma,
v_eps = (eps - sigma x_t) / alpha and v itself, and the fused one is their sum with weights g of sum 1. The divisions
blow errors up at the two ends, so nothing here divides unless g itself does not vanish there: a fuse gives
g / (sigma, alpha, 1), what each head's own output counts.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from smallbatch.errors import UserError
from smallbatch.notation import NoiseLevel, Observed, PerImage
from smallbatch.running import Running, interpolate

PerHead = Float[Tensor, "b 3"]
LOW, HIGH = -15.0, 15.0  # log-SNR at the centres of the first and the last bin


def scales(level: NoiseLevel) -> PerHead:
    """(sigma, alpha, 1) of the unit level: the size of a head's own error for a unit error in v."""
    unit = level.unit
    return torch.cat([unit.sigma, unit.alpha, torch.ones_like(unit.alpha)], dim=1).flatten(1)


class Fuse(nn.Module, ABC):
    """What each head counts, by the noise level alone."""

    @abstractmethod
    def forward(self, level: NoiseLevel) -> PerHead:
        """g / (sigma, alpha, 1)."""

    def weights(self, level: NoiseLevel) -> PerHead:
        """g, what the velocity of each head counts."""
        return self(level) * scales(level)

    def observe(self, observed: Observed) -> None:
        """Called once per optimizer step, after it. A closed form learns nothing."""


class ClosedForm(Fuse):
    """Inverse-variance weights g = (sigma^2, alpha^2, 1) / 2 of heads that err independently and equally, each in its
    own space: v = 1/2 v_head + 1/2 (alpha eps_head - sigma x0_head)."""

    def forward(self, level: NoiseLevel) -> PerHead:
        return scales(level) / 2


class Gate(Fuse):
    """The best linear unbiased combination, g = M^-1 1 / (1^T M^-1 1) with M = G + r D, in bins of log-SNR.

    G is a running mean of the Gram matrix of the heads' errors in v, and D = diag(1 / sigma^2, 1 / alpha^2, 1), under
    which the closed form is best. So a strong ridge r leads to the closed form; one with r I would lead to equal
    thirds, which at the ends are off by 1 / sigma and 1 / alpha. The ridge is `ridge` times the mean square of what
    sets the heads apart, over its value under D: G + rho 11^T, an error that all heads share, gives the same g.

    Solved in what sets the heads apart: the left-over, x_t - alpha x0_head - sigma eps_head, which is
    alpha sigma (v_x0 - v_eps); and the pair, sigma^2 v_x0 + alpha^2 v_eps, less v_head. Least squares finds what share
    of each the gate adds to v_head: 0 and 1/2 in the closed form, at every level. Neither is singular, and D looks the
    same everywhere, so a bin may be wide. The errors are those of the weights in training; sampling asks the averaged
    weights with the same shares. A share is kept within `reach` of the closed form's.
    """

    prior: Tensor

    def __init__(
        self,
        bins: int = 16,
        halflife_images: float = 50_000,
        ridge: float = 0.01,
        prior_rows: float = 32,
        reach: float = 1.5,
    ):
        super().__init__()
        _check(bins, prior_rows)
        if ridge <= 0 or reach <= 0:
            raise UserError(
                f"prediction: {ridge=} and {reach=} must be above 0; for no gate use prediction=mixed_blend"
            )
        prior = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, -1.0], [0.0, -1.0, 1.0]])  # D, through `_apart`
        self.register_buffer("prior", prior.double(), persistent=False)
        self.gram = Running(bins, halflife_images, prior.expand(bins, 3, 3), prior_rows).double()
        self.ridge, self.reach = ridge, reach

    def forward(self, level: NoiseLevel) -> PerHead:
        left, pair = at(self.table, level).unbind(dim=1)
        sigma, alpha, _ = scales(level).unbind(dim=1)
        return torch.stack([pair * sigma + left * alpha, pair * alpha - left * sigma, 1 - pair], dim=1)

    @property
    def table(self) -> Float64[Tensor, "bins 2"]:
        """The shares of the left-over and of the pair at the centre of each bin."""
        mean = self.gram.mean
        ridge = (self.ridge / 2 * (mean[:, 0, 0] + mean[:, 1, 1] / 2)).clamp(min=1e-30)
        normal = mean + ridge[:, None, None] * self.prior
        (a, b, c), (_, d, e) = normal[:, 0].unbind(1), normal[:, 1].unbind(1)  # [a b; b d] shares = -[c, e]
        det = a * d - b.square()
        left, pair = (b * e - d * c) / det, (b * c - a * e) / det
        return torch.stack([left.clamp(-self.reach, self.reach), (pair - 0.5).clamp(-self.reach, self.reach) + 0.5], 1)

    def observe(self, observed: Observed) -> None:
        apart = _apart(observed.logsnr.double())
        self.gram.update(
            nearest(observed.logsnr, self.gram.bins), apart @ observed.gram.to(apart) @ apart.transpose(1, 2)
        )


def _apart(logsnr: Float64[Tensor, " b"]) -> Float64[Tensor, "b 3 3"]:
    """Turns the heads' errors into the left-over, the pair less v, and the error of v."""
    alpha, sigma, zero = logsnr.sigmoid().sqrt(), (-logsnr).sigmoid().sqrt(), torch.zeros_like(logsnr)
    rows = [(alpha * sigma, -alpha * sigma, zero), (sigma.square(), alpha.square(), zero - 1), (zero, zero, zero + 1)]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


class Winners(Fuse):
    """Each head counts the share of the images near this log-SNR that taught it; for teaching the smallest loss.

    Xie & Agam 2025 (2502.01990) do not say how their heads are fused when sampling. A head that never wins at a level
    was not taught there, and must not be asked. Bins that saw little count as in the closed form: with equal thirds
    there, the heads that are blown up at the ends would drown the one that was taught.
    """

    def __init__(self, bins: int = 16, halflife_images: float = 50_000, prior_rows: float = 0.1):
        super().__init__()
        _check(bins, prior_rows)
        centres = torch.linspace(LOW, HIGH, bins)
        prior = torch.stack([(-centres).sigmoid(), centres.sigmoid(), torch.ones(bins)], dim=1) / 2
        self.wins = Running(bins, halflife_images, prior, prior_rows)

    def forward(self, level: NoiseLevel) -> PerHead:
        return at(self.wins.mean, level) / scales(level)

    def observe(self, observed: Observed) -> None:
        self.wins.update(nearest(observed.logsnr, self.wins.bins), winner(observed))


def winner(observed: Observed) -> PerHead:
    """One-hot of the head that was taught: the others count nothing."""
    return F.one_hot(observed.factor.argmax(dim=1), 3).to(observed.factor)


def at(table: Float[Tensor, "bins n"], level: NoiseLevel) -> Float[Tensor, "b n"]:
    logsnr = level.logsnr.flatten().to(table)
    return interpolate(table, place(logsnr, len(table))).to(level.alpha)


def nearest(logsnr: PerImage, bins: int) -> Int[Tensor, " b"]:
    return place(logsnr, bins).round().long().clamp(0, bins - 1)


def place(logsnr: PerImage, bins: int) -> PerImage:
    """Counted in bins, 0 at the centre of the first."""
    return (logsnr - LOW) / (HIGH - LOW) * (bins - 1)


def _check(bins: int, prior_rows: float) -> None:
    if bins < 2 or prior_rows <= 0:
        raise UserError(f"prediction: {bins=} must be at least 2, and {prior_rows=} above 0")
