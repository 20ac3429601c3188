"""Paired differences."""

import math

import pytest
import torch
from scipy import stats

from smallbatch.report.paired import difference, interval


def test_an_interval_is_students():
    values = [1.0, 2.0, 4.0, 7.0]
    low, high = stats.t.interval(0.95, 3, loc=3.5, scale=stats.sem(values))
    got = interval(values)
    assert (got.mean, got.n) == (3.5, 4) and (got.low, got.high) == pytest.approx((low, high))


def test_an_interval_of_normal_values_holds_their_mean_95_times_in_100():
    draws = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    hits = [got.low < 0 < got.high for got in map(interval, draws.tolist())]
    assert abs(sum(hits) / 2000 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000)


def test_one_value_has_no_interval_and_is_not_real():
    got = interval([2.0])
    assert got.mean == 2 and math.isnan(got.low) and not got.real


def test_what_seeds_share_drops_out():
    theirs = {seed: 1.0 + seed for seed in range(4)}
    got = difference({seed: 0.9 * value for seed, value in theirs.items()} | {9: 50.0}, theirs)
    assert (got.mean, got.low, got.high) == pytest.approx((-10, -10, -10)) and got.n == 4 and got.real
