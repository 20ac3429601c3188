"""The Frechet distance between Gaussians, and what it would be at infinitely many images."""

from typing import NamedTuple

import torch
from jaxtyping import Float64
from scipy.special import stdtrit
from torch import Tensor

from smallbatch.errors import UserError
from smallbatch.metrics.moments import Moments, MomentSums


class Estimate(NamedTuple):
    """A value with the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float


def frechet(a: Moments, b: Moments) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (B^1/2 A B^1/2)^1/2), at least 0. Heusel et al. 2017 (1706.08500), eq. 6.

    A B, whose root is the usual way, is not symmetric: with fewer images than features its root can come out complex.
    The eigenvalues of this product are real, and those that rounding puts below 0 are 0.
    """
    b = _on(a.mean.device, b)
    return _distance(a, b, _root(b))


def extrapolate(sums: MomentSums, reference: Moments) -> Estimate:
    """The distance at infinitely many images, from leaving out one block of `sums`, of at least 2, after the other.

    In aim FID_inf of Chong & Forsyth 2020 (1911.07023), who fit a line through distances at several n. The jackknife
    removes the same bias, c / n, and has an interval; for blocks that differ in size as in Busing et al. 1999. Measured
    on Gaussians of few features, it holds the true distance in 95 % of cases; in 98 % where that is 0, for there errors
    count squared, and the spread comes out up to sqrt(2) too large. The value may lie below 0, for only so it is right
    on average: where the interval holds 0, these images cannot be told from the reference. A bias of order 1 / n^2 is
    left, of which the interval does not know: for n above d the value is too low by about d / (7 n) of the bias removed
    (measured at 64 and 2048 features), 7 % of it at n = 2 d. `reference` is taken as exact.
    """
    n = int(sums.count.sum())
    assert sums.blocks >= 2, f"{sums.blocks=}"
    if n < 2 * sums.blocks:
        raise UserError(f"n={n} is too small to extrapolate from: it needs at least {2 * sums.blocks} images")
    reference = _on(sums.device, reference)
    root, share = _root(reference), sums.count.cpu().double() / n
    plain = _distance(sums.moments(), reference, root)
    without = [_distance(sums.without(block), reference, root) for block in range(sums.blocks)]
    pseudo = (plain - (1 - share) * torch.tensor(without, dtype=torch.float64)) / share
    value = float(share @ pseudo)
    spread = ((pseudo - value).square() * share / (1 - share)).mean().sqrt()
    reach = float(stdtrit(sums.blocks - 1, 0.975) * spread)
    return Estimate(value, value - reach, value + reach)


def _distance(a: Moments, b: Moments, root_b: Float64[Tensor, "d d"]) -> float:
    product = root_b @ _finite(a).covariance @ root_b
    overlap = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    spreads = a.covariance.trace() + b.covariance.trace() - 2 * overlap
    return max(float((a.mean - b.mean).square().sum() + spreads), 0.0)


def _root(moments: Moments) -> Float64[Tensor, "d d"]:
    """The symmetric root of the covariance, made symmetric: a foreign file's may be so to rounding only."""
    covariance = _finite(moments).covariance
    variances, axes = torch.linalg.eigh((covariance + covariance.T) / 2)
    return (axes * variances.clamp(min=0).sqrt()) @ axes.T


def _finite(moments: Moments) -> Moments:
    if not (moments.mean.isfinite().all() and moments.covariance.isfinite().all()):
        raise UserError("features or their moments are not finite: look for NaN in images, weights and reference")
    return moments


def _on(device: torch.device, moments: Moments) -> Moments:
    return Moments(moments.n, moments.mean.to(device), moments.covariance.to(device))
