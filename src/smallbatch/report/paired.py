"""Runs compared seed by seed: what initial weights, data order and noise share drops out of the difference."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy import stats


class Interval(NamedTuple):
    """A mean and its 95 % confidence interval by Student's t; of a single value, without ends (nan)."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def real(self) -> bool:
        """Whether 0 lies outside."""
        return self.low > 0 or self.high < 0


def interval(values: Sequence[float]) -> Interval:
    n, mean = len(values), math.fsum(values) / len(values)
    if n < 2:
        return Interval(mean, math.nan, math.nan, n)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    reach = float(stats.t.ppf(0.975, n - 1)) * spread
    return Interval(mean, mean - reach, mean + reach, n)


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Interval:
    """Of ours from theirs, in percent of theirs, over the seeds that both have."""
    shared = sorted(seed for seed in ours.keys() & theirs.keys() if theirs[seed])
    return interval([100 * (ours[seed] / theirs[seed] - 1) for seed in shared])
