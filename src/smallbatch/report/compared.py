"""Choices held against a baseline: every metric, one value per seed, at the same number of images."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from smallbatch.errors import UserError
from smallbatch.report.choices import Choice, Label
from smallbatch.report.figures import Point
from smallbatch.report.measures import better, is_of_real
from smallbatch.report.paired import ALPHA, Interval, difference, holm, interval, percentage, positive
from smallbatch.report.runs import Run

BySeed = Mapping[float, Mapping[int, float]]  # values by log-SNR and seed
NEAR = 0.02  # counts of images that differ by less are equal: a batch ends where it ends


class Cell(NamedTuple):
    """Of one choice. `points` are by seed; `change` is in the comparison's unit, `p` corrected for all choices."""

    points: Mapping[int, Point]
    level: Interval | None
    change: Interval | None = None
    p: float | None = None

    @property
    def resolved(self) -> bool:
        return self.p is not None and self.p < ALPHA


@dataclass(frozen=True)
class Comparison:
    """At these `images`, whose reason is `why`; the most that any run reached is `furthest`.

    `unit` is % of the baseline, or that of the metric itself where a value of the baseline is not above 0.
    """

    metric: str
    images: int
    why: Literal["asked", "every finished run", "most runs"]
    furthest: int
    unit: Literal["%", ""]
    cells: Mapping[Label, Cell]
    tests: int  # how many p are corrected together


@dataclass(frozen=True)
class Report:
    choices: Sequence[Choice]  # best first, then those that have no value
    baseline: Label | None
    comparisons: Mapping[str, Comparison]  # that of the chosen metric first
    left_out: Sequence[str] = ()
    equal: Literal["images", "flops"] = "images"  # where runs are compared; flops are counted in the baseline's images

    @property
    def runs(self) -> list[Run]:
        return [run for choice in self.choices for run in choice.runs.values()]

    def choice(self, label: Label) -> Choice:
        return next(choice for choice in self.choices if choice.label == label)

    @property
    def main(self) -> Comparison | None:
        """None where nothing was measured."""
        return next(iter(self.comparisons.values()), None)


def report(
    choices: Sequence[Choice], metric: str, baseline: Label | None, images: int | None, left_out: Sequence[str] = ()
) -> Report:
    """Compared at `images`, or else where `common_images` says."""
    names = measured(choices)
    if names and metric not in names:
        raise UserError(f"metric={metric} was not measured by any of these runs; they have {', '.join(names)}")
    ordered = sorted(names, key=lambda name: (name != metric, not name.startswith("val/"), name))
    comparisons = {name: compare(choices, name, baseline, images) for name in ordered}
    cells = comparisons[metric].cells if names else {}
    sign = -1 if better(metric) == "higher" else 1
    known = sorted((c for c in choices if c.label in cells), key=lambda c: sign * cells[c.label].level.mean)
    return Report([*known, *(c for c in choices if c.label not in cells)], baseline, comparisons, left_out)


def measured(choices: Iterable[Choice]) -> list[str]:
    """The metrics of any run, but for what is shown beside another or cannot be compared."""
    found = {name for choice in choices for run in choice.runs.values() for name in run.points}
    return sorted(name for name in found if not is_of_real(name) and not name.startswith("train/"))


def compare(choices: Sequence[Choice], metric: str, baseline: Label | None, images: int | None) -> Comparison:
    runs = [run for choice in choices for run in choice.runs.values() if metric in run.points]
    why = "asked" if images else "most runs"
    images = images or common_images(runs, metric)
    finished = [run for choice in choices for run in choice.runs.values() if run.status.state == "finished"]
    if why != "asked" and finished and all(point_at(run.points.get(metric, ()), images) for run in finished):
        why = "every finished run"
    furthest = max(run.points[metric][-1].images for run in runs)
    points = {choice.label: at(choice, metric, images) for choice in choices}
    theirs = values(points.get(baseline, {}))
    unit, change = ("%", percentage) if positive(theirs) else ("", difference)
    cells = {
        label: Cell(found, interval(list(values(found).values())), change(values(found), theirs))
        for label, found in points.items()
        if found
    }
    tested = [label for label, cell in cells.items() if label != baseline and cell.change and cell.change.n > 1]
    for label, p in zip(tested, holm([cells[label].change.p for label in tested]), strict=True):
        cells[label] = cells[label]._replace(p=p)
    return Comparison(metric, images, why, furthest, unit, cells, len(tested))


def at(choice: Choice, metric: str, images: int) -> dict[int, Point]:
    """By seed, where there is a measurement at these images."""
    found = {seed: point_at(run.points.get(metric, ()), images) for seed, run in choice.runs.items()}
    return {seed: point for seed, point in found.items() if point}


def values(points: Mapping[int, Point]) -> dict[int, float]:
    return {seed: point.value for seed, point in points.items()}


def values_per_logsnr(choice: Choice, cell: Cell, metric: str) -> BySeed:
    """At the images compared."""
    found: dict[float, dict[int, float]] = defaultdict(dict)
    for seed, point in cell.points.items():
        for logsnr, value in choice.runs[seed].bins.get(metric, {}).get(point.images, {}).items():
            found[logsnr][seed] = value
    return {logsnr: found[logsnr] for logsnr in sorted(found)}


def point_at(points: Sequence[Point], images: int) -> Point | None:
    """The one nearest to these images, if it is near enough."""
    i = bisect_left(points, (images,))
    near = min(points[max(0, i - 1) : i + 1], key=lambda point: abs(point.images - images), default=None)
    return near if near and abs(near.images - images) <= NEAR * images else None


def common_images(runs: Sequence[Run], metric: str) -> int:
    """The greatest number of images at which every finished run has measured it; where there is none, most of them."""
    finished = [run.points[metric] for run in runs if run.status.state == "finished"]
    series = finished or [run.points[metric] for run in runs]
    candidates = {point.images for points in series for point in points}
    return max(candidates, key=lambda images: (sum(point_at(points, images) is not None for points in series), images))
