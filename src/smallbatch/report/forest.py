"""A forest plot: the difference of every row with its interval, on one axis for all."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from smallbatch.report.paired import Interval
from smallbatch.report.text import sign

WIDTH, MARGIN, LETTER = 200.0, 10.0, 6.5  # of the drawing and of a tick's letters, in the drawing's own units


class Mark(NamedTuple):
    """Where an interval begins, has its mean and ends."""

    low: float
    mean: float
    high: float


class Axis:
    """Linear about 0 and logarithmic far from it, so that 1 % and 400 % can both be seen: asinh of the difference over
    one that is smaller than three in four.
    """

    def __init__(self, changes: Sequence[Interval]):
        sizes = sorted(abs(change.mean) for change in changes if change.mean)
        self.unit = sizes[len(sizes) // 4] if sizes else 1.0
        ends = [end for change in changes for end in (change.low, change.mean, change.high) if math.isfinite(end)]
        self.least, self.most = self._bent(min(0.0, *ends)), self._bent(max(0.0, *ends))

    def _bent(self, value: float) -> float:
        return math.asinh(value / self.unit)

    def __call__(self, value: float) -> float:
        share = (self._bent(value) - self.least) / ((self.most - self.least) or 1.0)
        return round(MARGIN + share * (WIDTH - 2 * MARGIN), 1)

    def mark(self, change: Interval) -> Mark:
        ends = [end if math.isfinite(end) else change.mean for end in (change.low, change.high)]
        return Mark(self(ends[0]), self(change.mean), self(ends[1]))

    def ticks(self) -> list[float]:
        """0, and on either side as many of 1, 2, 5, 10 ... as fit, the greatest first."""
        steps = [way * digit * 10.0**power for power in range(5, -7, -1) for digit in (5, 2, 1) for way in (1, -1)]
        kept = [0.0]
        for step in steps:
            inside = self.least <= self._bent(step) <= self.most
            if inside and all(abs(self(step) - self(tick)) > _room(step, tick) for tick in kept):
                kept.append(step)
        return sorted(kept)


def _room(*ticks: float) -> float:
    """Between two ticks whose figures stand beside each other, centred."""
    return LETTER * (1 + sum(len(sign(tick)) for tick in ticks) / 2)
