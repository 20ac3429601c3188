"""Paired differences and their correction."""

import itertools
import math

import pytest
import torch
from scipy import stats

from smallbatch.report.paired import difference, holm, interval, percentage


def test_an_interval_is_students():
    values = [1.0, 2.0, 4.0, 7.0]
    low, high = stats.t.interval(0.95, 3, loc=3.5, scale=stats.sem(values))
    got = interval(values)
    assert (got.mean, got.n) == (3.5, 4) and (got.low, got.high) == pytest.approx((low, high))
    assert got.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_a_95_percent_interval_holds_the_truth_95_times_in_100():
    draws = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    hits = [got.low < 0 < got.high for got in map(interval, draws.tolist())]
    assert abs(sum(hits) / 2000 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000)


def test_p_and_the_interval_agree_on_what_excludes_0():
    draws = torch.randn(200, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.8
    for got in map(interval, draws.tolist()):
        assert (got.p < 0.05) == (got.low > 0 or got.high < 0)


def test_one_value_has_neither_interval_nor_p():
    got = interval([2.0])
    assert got.mean == 2 and math.isnan(got.low) and math.isnan(got.p)


def test_what_seeds_share_drops_out():
    theirs = {seed: 1.0 + seed for seed in range(4)}
    got = percentage({seed: 0.9 * value for seed, value in theirs.items()} | {9: 50.0}, theirs)
    assert (got.mean, got.low, got.high) == pytest.approx((-10, -10, -10)) and got.n == 4 and got.p < 1e-6


def test_a_difference_needs_a_shared_seed_and_something_to_be_in_percent_of():
    assert difference({0: 1.0}, {1: 1.0}) is None and percentage({0: 1.0}, {1: 1.0}) is None
    assert percentage({0: 1.0}, {0: 0.0}) is None
    assert percentage({0: 1.0, 1: 1.0}, {0: 2.0, 1: -1.0}) is None  # no seed is dropped for its value


def test_equal_values_do_not_differ():
    assert difference({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}).p == 1


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_holm_is_the_closed_test_of_all_intersections_by_bonferroni():
    for seed in range(20):
        p = torch.rand(5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).pow(3).tolist()
        families = [s for k in range(1, 6) for s in itertools.combinations(range(5), k)]
        by_definition = [max(min(1.0, len(s) * min(p[j] for j in s)) for s in families if i in s) for i in range(5)]
        assert holm(p) == pytest.approx(by_definition)
