"""Pearson's chi-square test: do drawn points follow a stated law?"""

import torch
from jaxtyping import Float
from scipy.stats import chi2
from torch import Tensor


def fits(points: Float[Tensor, " n"], edges: Float[Tensor, " k"], masses: Float[Tensor, " m"]) -> bool:
    """Whether the counts of the points between the edges agree with the masses, up to the 99.9 % quantile."""
    return statistic_of(points, edges, masses) <= chi2.ppf(0.999, len(masses) - 1)


def statistic_of(points: Float[Tensor, " n"], edges: Float[Tensor, " k"], masses: Float[Tensor, " m"]) -> float:
    """Pearson 1900: sum of (count - expected)^2 / expected; the k = m + 1 edges hold every point."""
    counts = torch.histogram(points.double().cpu(), edges.double().cpu()).hist
    assert counts.sum() == len(points), "some points lie outside the edges"
    expected = masses.double().cpu() / masses.double().sum().cpu() * len(points)
    return float(((counts - expected).square() / expected).sum())
