"""Curves of a choice over its seeds, as the page draws them: a mean within the least and the greatest."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from smallbatch.report.choices import Choice
from smallbatch.report.compared import BySeed, Cell, values_per_logsnr
from smallbatch.report.paired import positive

POINTS = 60  # of a curve at most: the page is small, and a screen shows no more


class Curve(NamedTuple):
    """Parallel lists; `low` and `high` are those of single runs."""

    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


class Course(NamedTuple):
    """A metric while training; `seconds` and `images` are parallel to its curve."""

    seconds: list[float]
    curve: Curve


def course(choice: Choice, metric: str) -> Course | None:
    """Over images. A mean is of the seeds that have measured there."""
    at: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for run in choice.runs.values():
        for point in run.points.get(metric, ()):
            at[point.images].append((point.seconds, point.value))
    if len(at) < 2:  # a point is no curve
        return None
    kept = thinned(sorted(at))
    seconds = [short(math.fsum(s for s, _ in at[images]) / len(at[images])) for images in kept]
    return Course(seconds, over({images: [value for _, value in at[images]] for images in kept}))


def per_logsnr(choice: Choice, cell: Cell, metric: str) -> Curve | None:
    """At the images of every seed's value."""
    at = values_per_logsnr(choice, cell, metric)
    return over({logsnr: list(by_seed.values()) for logsnr, by_seed in at.items()}) if at else None


def change_per_logsnr(ours: BySeed, theirs: BySeed) -> Curve | None:
    """In percent of theirs, seed by seed, where all of theirs are above 0."""
    shared = {
        logsnr: [100 * (ours[logsnr][seed] / theirs[logsnr][seed] - 1) for seed in seeds]
        for logsnr in sorted(ours.keys() & theirs.keys())
        if positive(theirs[logsnr]) and (seeds := ours[logsnr].keys() & theirs[logsnr].keys())
    }
    return over(shared) if shared else None


def density(choice: Choice) -> Curve | None:
    """The share of the trained rows per unit of log-SNR. The outermost bins are open."""
    at: dict[float, list[float]] = defaultdict(list)
    whole = [run.spent for run in choice.runs.values() if sum(run.spent.values())]
    centres = sorted({logsnr for spent in whole for logsnr in spent})
    width = min((b - a for a, b in pairwise(centres)), default=1.0)
    for spent in whole:
        for logsnr in centres:
            at[logsnr].append(spent.get(logsnr, 0) / sum(spent.values()) / width)
    return over(at) if at else None


def over(seeds: Mapping[float, Sequence[float]]) -> Curve:
    rows = [(x, math.fsum(v) / len(v), min(v), max(v)) for x, v in seeds.items()]
    x, *rest = zip(*rows, strict=True)
    return Curve(list(x), *([short(value) for value in column] for column in rest))


def thinned(x: Sequence[int]) -> list[int]:
    """Evenly, with both ends."""
    if len(x) <= POINTS:
        return list(x)
    return [x[round(i * (len(x) - 1) / (POINTS - 1))] for i in range(POINTS)]


def short(value: float) -> float:
    """As many digits as can be seen."""
    return float(f"{value:.4g}")
