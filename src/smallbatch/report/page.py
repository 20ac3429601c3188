"""A report as one HTML page that needs no network: a table, curves and sample grids."""

import base64
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from functools import partial
from importlib.resources import files
from itertools import islice
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from smallbatch.report import curves, findings, restated, samples, text
from smallbatch.report.choices import Choice
from smallbatch.report.compared import NEAR, Cell, Comparison, Report, values_per_logsnr
from smallbatch.report.forest import WIDTH, Axis, Mark
from smallbatch.report.measures import better
from smallbatch.report.paired import ALPHA

FINDINGS = 48  # of a page
COUNTED = {"images": "images", "flops": "images of the baseline, same FLOPs"}  # on an axis
STATES = ("finished", "training", "interrupted", "failed")


def page(report: Report) -> str:
    """Everything shown is escaped; no script runs but the page's own, whatever a run folder holds."""
    environment = Environment(
        loader=PackageLoader("smallbatch.report", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    for way in (text.number, text.quantity, text.moved, text.probability, text.sign):
        environment.filters[way.__name__] = typeset(way)
    style, script = (
        files("smallbatch.report").joinpath(f"page/{name}").read_text() for name in ("page.css", "page.js")
    )
    metrics = [Column(report, comparison) for comparison in report.comparisons.values()]
    rows = [Row(i, choice, metrics) for i, choice in enumerate(report.choices)]
    return environment.get_template("page.html").render(
        report=report,
        title=title(report),
        made=datetime.now(timezone.utc).strftime("%d %B %Y, %H:%M UTC"),
        metrics=metrics,
        rows=rows,
        grids=[(row, grid) for row in rows[: samples.GRIDS] if (grid := samples.newest(row.choice))],
        findings=list(islice(findings_of(rows), FINDINGS)),
        states=in_order(Counter(run.status.state for run in report.runs)),
        devices=Counter(run.status.device for run in report.runs).most_common(),
        hours=sum(run.device_hours for run in report.runs),
        money=total([run.money for run in report.runs]),
        settings=facets(report),
        payload=payload(report, rows),
        style=style,
        script=script,
        hashes={"style": sha256(style), "script": sha256(script)},
        limits={
            "grids": samples.GRIDS,
            "findings": FINDINGS,
            "side": samples.SIDE,
            "points": curves.POINTS,
            "near": NEAR,
            "alpha": ALPHA,
        },
        width=WIDTH,
        at=partial(restated.at, report),
        zip=partial(zip, strict=True),
    )


def title(report: Report) -> str:
    """The folder that holds all runs."""
    return os.path.basename(os.path.commonpath([os.path.abspath(run.folder.parent) for run in report.runs])) or "runs"


class Column:
    """A metric of the table, with the axis of its differences."""

    def __init__(self, report: Report, comparison: Comparison):
        self.comparison, self.name, self.better = comparison, comparison.metric, better(comparison.metric)
        self.unit, self.sized = comparison.unit, f" {comparison.unit}".rstrip()  # as it follows a figure
        self.short = self.name.removeprefix("metrics/")
        self.others = {k: cell for k, cell in comparison.cells.items() if k != report.baseline and cell.change}
        self.axis = Axis([cell.change for cell in self.others.values()]) if self.others else None
        self.resolved = [(label, cell) for label, cell in self.others.items() if cell.resolved]
        self.sign = {"lower": -1, "higher": 1, None: 0}[self.better]

    def verdict(self, cell: Cell) -> str:
        """Better, worse, other (where neither is defined), or open."""
        if not cell.resolved:
            return "open"
        return {1: "better", -1: "worse", 0: "other"}[self.sign * (1 if cell.change.mean > 0 else -1)]

    def count(self, verdict: str) -> int:
        return sum(self.verdict(cell) == verdict for cell in self.others.values())

    @property
    def best(self) -> tuple[str, Cell] | None:
        """The choice furthest on the better side of the baseline."""
        if not self.sign or not self.others:
            return None
        label, cell = max(self.others.items(), key=lambda item: self.sign * item[1].change.mean)
        return (label, cell) if self.sign * cell.change.mean > 0 else None


class Shown(NamedTuple):
    """A cell with where its interval is drawn and what becomes of it."""

    cell: Cell
    mark: Mark | None
    verdict: str
    of_real: float | None
    marks: list[str]


class Row:
    def __init__(self, index: int, choice: Choice, metrics: list[Column]):
        self.index, self.choice, self.label = index, choice, choice.label
        runs = list(choice.runs.values())
        self.states = in_order(Counter(run.status.state for run in runs))
        self.images = sum(run.status.images for run in runs) / len(runs)
        self.hours = sum(run.device_hours for run in runs) / len(runs)
        self.money = mean([run.money for run in runs])
        self.flops = mean([run.flops for run in runs])
        self.commands = "\n".join(run.command for run in runs)
        self.problems = [(seed, run) for seed, run in choice.runs.items() if run.status.error or run.log]
        self.cells = [self._shown(metric) for metric in metrics]

    def _shown(self, metric: Column) -> Shown | None:
        cell = metric.comparison.cells.get(self.label)
        if cell is None:
            return None
        scores = [score for run in self.choice.runs.values() if (score := run.scores.get(metric.name))]
        of_real = [score.of_real for score in scores if score.of_real is not None]
        marks = list(dict.fromkeys(mark for score in scores for mark in score.marks))
        mark = metric.axis.mark(cell.change) if metric.axis and cell.change else None
        return Shown(cell, mark, metric.verdict(cell), mean(of_real), marks)


def findings_of(rows: list[Row]) -> Iterator[tuple[Row, int, findings.Finding]]:
    for row in rows:
        for seed, run in row.choice.runs.items():
            yield from ((row, seed, finding) for finding in findings.found(run))


def payload(report: Report, rows: list[Row]) -> dict[str, Any]:
    """What the page's script draws."""
    drawn = [*report.comparisons, "train/loss"]
    labels = [row.label for row in rows]
    return {
        "metrics": [{"name": name, "better": better(name)} for name in drawn],
        "counted": COUNTED[report.equal],
        "baseline": labels.index(report.baseline) if report.baseline else None,
        "rows": [series(report, row, drawn) for row in rows],
    }


def series(report: Report, row: Row, drawn: list[str]) -> dict[str, Any]:
    courses, noise, relative = {}, {}, {}
    for i, name in enumerate(drawn):
        if found := curves.course(row.choice, name):
            courses[i] = {"seconds": found.seconds, **found.curve._asdict()}
        cells = report.comparisons[name].cells if name in report.comparisons else {}
        if row.label in cells and (found := curves.per_logsnr(row.choice, cells[row.label], name)):
            noise[i] = found._asdict()
        if row.label in cells and report.baseline in cells:
            both = ((report.choice(label), cells[label], name) for label in (row.label, report.baseline))
            if found := curves.change_per_logsnr(*(values_per_logsnr(*one) for one in both)):
                relative[i] = found._asdict()
    spent = curves.density(row.choice)
    return {
        "label": row.label,
        "settings": row.choice.settings,
        "states": [state for state, _ in row.states],
        "flops": row.choice.first.flops_per_image,
        "courses": courses,
        "noise": noise,
        "relative": relative,
        "density": spent and spent._asdict(),
    }


def facets(report: Report) -> dict[str, list[str]]:
    """The values of every setting by which rows can be told apart."""
    names = sorted({name for choice in report.choices for name in choice.settings})
    if len(report.choices) == 1:
        return {}
    return {name: sorted({c.settings[name] for c in report.choices if name in c.settings}) for name in names}


def typeset(way: Callable[..., str]) -> Callable[..., str]:
    """With the sign for minus in place of the hyphen."""
    return lambda *given: way(*given).replace("-", "\N{MINUS SIGN}")


def in_order(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return [(state, counts[state]) for state in STATES if counts.get(state)]


def mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def total(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def sha256(source: str) -> str:
    """As a content security policy names what may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
