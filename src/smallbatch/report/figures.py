"""What a report shows of what a run has measured: figures while training, and scores."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from smallbatch.files import read_json
from smallbatch.recorded import Row, parsed
from smallbatch.report.measures import of_real

SHOWN = re.compile(rb'^.*"name": "(?:val/|metrics/|train/loss").*$', re.M)
NUMBERS = ("images", "seconds", "value", "logsnr", "n")


class Point(NamedTuple):
    """A figure when so many images had been trained on, in so many seconds."""

    images: int
    seconds: float
    value: float


class Score(NamedTuple):
    """What metrics/*.json says beside a value."""

    of_real: float | None
    marks: tuple[str, ...]


def shown(folder: Path) -> list[Row]:
    """What a report shows of metrics.jsonl, by images; the rest, most of what a thousand runs hold, is not parsed."""
    path = folder / "metrics.jsonl"
    lines = SHOWN.findall(path.read_bytes()) if path.is_file() else []
    rows = [row for line in lines if (row := parsed(line)) and all(finite(row.get(key, 0)) for key in NUMBERS)]
    return sorted(rows, key=lambda row: row["images"])


def finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300  # a whole number may be too long for a float


def figures(
    rows: list[Row],
) -> tuple[dict[str, list[Point]], dict[str, dict[int, dict[float, float]]], dict[float, int]]:
    """Points by metric; its values per log-SNR, by images; the rows that were trained on, by log-SNR."""
    points: dict[str, list[Point]] = defaultdict(list)
    bins: dict[str, dict[int, dict[float, float]]] = defaultdict(lambda: defaultdict(dict))
    spent: dict[float, int] = defaultdict(int)
    for row in rows:
        name, images = row["name"], row["images"]
        if "logsnr" not in row:
            points[name].append(Point(images, row["seconds"], row["value"]))
        elif name == "train/loss":
            spent[row["logsnr"]] += row.get("n", 0)
        else:
            bins[name][images][row["logsnr"]] = row["value"]
    return dict(points), {name: dict(by_images) for name, by_images in bins.items()}, dict(spent)


def judged(folder: Path, rows: list[Row]) -> tuple[dict[str, Score], dict[str, list[Point]]]:
    """What is to know of every score, newest last; and the scores that `evaluate` gave a model of so many images."""
    scores: dict[str, Score] = {}
    drawn: dict[str, list[Point]] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            known = read_json(path)
            found = {str(one["name"]): one for one in known["metrics"]}
            values = {name: one["value"] for name, one in found.items() if finite(one["value"])}
            marks = {name: tuple(str(mark) for mark in found[name].get("marks", ())) for name in values}
            while_training = path.stem.isdecimal()  # named after its images; its values are in metrics.jsonl, too
            images = int(path.stem) if while_training else known["asked"]["images"]
        except (ValueError, TypeError, KeyError, AttributeError, OSError):
            continue  # no file of ours
        if not finite(images):
            continue
        seconds = max((row["seconds"] for row in rows if row["images"] <= images), default=0.0)
        for name, value in values.items():
            metric = f"metrics/{name}" if while_training else f"metrics/{name} of {path.stem}"
            scores[metric] = Score(of_real(name, values), marks[name])
            if not while_training:
                drawn[metric] = [Point(int(images), seconds, value)]
    return scores, drawn
