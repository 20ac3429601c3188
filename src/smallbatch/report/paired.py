"""Runs compared seed by seed: what initial weights, data order and noise share drops out of the difference."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy import special

ALPHA = 0.05


class Interval(NamedTuple):
    """A mean, its 95 % interval and the p of "it is 0", by Student's t; nan for what a single value lacks."""

    mean: float
    low: float
    high: float
    n: int
    p: float


def interval(values: Sequence[float]) -> Interval:
    n, mean = len(values), math.fsum(values) / len(values)
    if n < 2:
        return Interval(mean, math.nan, math.nan, n, math.nan)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    reach = float(special.stdtrit(n - 1, 1 - ALPHA / 2)) * spread
    if spread == 0:
        return Interval(mean, mean, mean, n, float(mean == 0))
    return Interval(mean, mean - reach, mean + reach, n, 2 * float(special.stdtr(n - 1, -abs(mean) / spread)))


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Interval | None:
    """Of ours from theirs, over the seeds that both have."""
    shared = sorted(ours.keys() & theirs.keys())
    return interval([ours[seed] - theirs[seed] for seed in shared]) if shared else None


def percentage(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Interval | None:
    """The difference in percent of theirs. None where theirs are not `positive`."""
    if not positive(theirs):
        return None
    shared = sorted(ours.keys() & theirs.keys())
    return interval([100 * (ours[seed] / theirs[seed] - 1) for seed in shared]) if shared else None


def positive(theirs: Mapping[int, float]) -> bool:
    """Whether differences can be in percent of them: one seed at 0 or below takes all, as to drop it would choose."""
    return min(theirs.values(), default=0) > 0


def holm(p: Sequence[float]) -> list[float]:
    """The p of a family of tests, corrected: no more than 5 % of families hold a false one below 0.05.

    Holm 1979: from the smallest on, the k-th of m counts m - k + 1 times, and none less than the one before.
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    corrected, least = [0.0] * len(p), 0.0
    for k, i in enumerate(order):
        least = max(least, min(1.0, (len(p) - k) * p[i]))
        corrected[i] = least
    return corrected
