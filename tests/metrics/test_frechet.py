"""Frechet distances against closed forms, and their extrapolation against what many draws say."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.special import stdtrit
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

from smallbatch.errors import UserError
from smallbatch.metrics.frechet import extrapolate, frechet
from smallbatch.metrics.moments import Moments, MomentSums, moments
from smallbatch.randomness import generator

cases = pytest.mark.parametrize
SIZES = [(3, 50, 40), (20, 500, 300), (20, 21, 21), (64, 30, 40), (64, 300, 20), (128, 2, 3)]  # features, then images


def covariance(d, seed):
    root = torch.randn(d, d, generator=generator(d, seed), dtype=torch.float64)
    return root @ root.T / d + 0.1 * torch.eye(d)


def rotation(d, seed=0):
    return torch.linalg.qr(torch.randn(d, d, generator=generator(d, seed), dtype=torch.float64))[0]


def gaussian(mean, covariance):
    return Moments(1000, mean, covariance)


def pair(d, n, m):
    """The moments of two clouds in d dimensions whose variances decay, and the clouds."""
    scale = 1 / torch.arange(1, d + 1)
    x, y = (torch.randn(k, d, generator=generator(k, d), dtype=torch.float64) * scale for k in (n, m))
    y = 1.2 * y + 0.1 * scale
    return moments(x), moments(y), x, y


def near(value, expected, rel=1e-6):
    assert value == pytest.approx(float(expected), rel=rel, abs=1e-12)


@cases("d", [1, 5, 30])
def test_equal_covariances_leave_the_distance_of_the_means(d):
    apart, same = torch.linspace(-1, 2, d).double(), covariance(d, 1)
    near(frechet(gaussian(torch.zeros(d).double(), same), gaussian(apart, same)), apart.square().sum())


def test_along_axes_standard_deviations_are_told_apart():
    a, b = torch.tensor([4.0, 9.0, 0.0]).double(), torch.tensor([1.0, 25.0, 4.0]).double()
    zero = torch.zeros(3).double()
    near(frechet(gaussian(zero, a.diag()), gaussian(zero, b.diag())), 1 + 4 + 4)


def test_covariances_that_commute_are_told_apart_along_their_axes():
    turn, a, b = rotation(12), torch.linspace(0, 4, 12).double(), torch.linspace(3, 1, 12).double()
    made = [gaussian(torch.zeros(12).double(), turn @ variance.diag() @ turn.T) for variance in (a, b)]
    near(frechet(*made), (a.sqrt() - b.sqrt()).square().sum())


@cases("d", [2, 9, 40])
def test_it_is_what_the_root_of_the_product_says(d):
    a, b, mean = covariance(d, 1), covariance(d, 2), torch.zeros(d).double()
    root = np.asarray(sqrtm((a @ b).numpy())).real
    near(frechet(gaussian(mean, a), gaussian(mean + 1, b)), d + a.trace() + b.trace() - 2 * np.trace(root))


@cases("size", SIZES)
def test_it_is_torch_fidelitys(size):
    a, b, *_ = pair(*size)
    theirs = [{"mu": part.mean.numpy(), "sigma": part.covariance.numpy()} for part in (a, b)]
    near(frechet(a, b), fid_statistics_to_metric(*theirs, verbose=False)[KEY_METRIC_FID])


@cases("size", SIZES)
def test_it_is_right_with_fewer_images_than_features(size):
    """tr (A B)^1/2 is the sum of the singular values of the clouds' product."""
    a, b, x, y = pair(*size)
    x, y = ((cloud - cloud.mean(dim=0)) / math.sqrt(len(cloud) - 1) for cloud in (x, y))
    overlap = torch.linalg.svdvals(x @ y.T).sum()
    near(frechet(a, b), (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * overlap)


@cases("size", SIZES)
def test_either_may_come_first_and_none_is_away_from_itself(size):
    a, b, *_ = pair(*size)
    near(frechet(a, b), frechet(b, a))
    assert 0 <= frechet(a, a) < 1e-6 * float(a.covariance.trace())


@cases("bad", [math.nan, math.inf])
@cases("where", [0, 1])
def test_what_is_not_finite_is_refused(bad, where):
    a, b, *_ = pair(3, 50, 40)
    b.covariance[1, 1] = bad
    with pytest.raises(UserError, match="not finite: look for NaN") as refused:
        frechet(*((a, b), (b, a))[where])
    assert "\n" not in str(refused.value)


class Draws:
    """Many clouds of n images of one Gaussian: the distance of each to a reference, and its extrapolation."""

    def __init__(self, truth, reference, n, blocks, times):
        self.true, noise = frechet(truth, reference), generator(n, blocks)
        root, rows = torch.linalg.cholesky(truth.covariance), torch.arange(n)
        self.plain, estimates = [], []
        for _ in range(times):
            sums = MomentSums(len(root), blocks)
            sums.add(torch.randn(n, len(root), generator=noise, dtype=torch.float64) @ root.T + truth.mean, rows)
            self.plain.append(frechet(sums.moments(), reference))
            estimates.append(extrapolate(sums, reference))
        self.plain, self.estimates = torch.tensor(self.plain), torch.tensor(estimates).double().T


def z(values, expected):
    """How many standard errors the mean is off."""
    return float((values.mean() - expected) / values.std() * math.sqrt(len(values)))


def covered(estimates, expected):
    _, low, high = estimates
    return float(((low <= expected) & (expected <= high)).double().mean())


def near_by(d):
    """Two Gaussians a small distance apart: beside a large one, chance hides the bias."""
    a, b = covariance(d, 1), covariance(d, 2)
    return gaussian(torch.zeros(d).double(), a), gaussian(torch.full((d,), 0.1).double(), 0.8 * a + 0.2 * b)


@cases("d, n, blocks", [(4, 200, 10), (8, 200, 10), (2, 42, 4)])  # 42: blocks of 11 and of 10
def test_extrapolation_removes_the_bias_and_its_interval_covers_the_truth(d, n, blocks):
    drawn = Draws(*near_by(d), n, blocks, times=200)
    assert z(drawn.plain, drawn.true) > 4 > 3 > abs(z(drawn.estimates[0], drawn.true))
    assert 0.9 <= covered(drawn.estimates, drawn.true) <= 0.98


@cache
def equal_distributions(n):
    truth, _ = near_by(5)
    return Draws(truth, truth, n, 10, times=200)


def test_between_equal_distributions_the_value_is_0_on_average_and_the_interval_too_wide():
    drawn = equal_distributions(200)
    value, low, high = drawn.estimates
    assert z(drawn.plain, 0) > 20 > 3 > abs(z(value, 0)) and value.min() < 0
    assert covered(drawn.estimates, 0) >= 0.95
    assert 1.1 < (high - low).mean() / 2 / stdtrit(9, 0.975) / value.std() < 1.5  # sqrt(2) in theory


def test_too_few_images_for_the_blocks_are_refused():
    sums = MomentSums(3, blocks=10)
    sums.add(torch.ones(19, 3), torch.arange(19))
    with pytest.raises(UserError, match="n=19 is too small to extrapolate from: it needs at least 20 images"):
        extrapolate(sums, moments(torch.eye(3)))
