"""Run folders read back: the settings that made each, what became of it, and every figure that a report shows."""

import fcntl
import os
import re
import shlex
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from smallbatch import status
from smallbatch.errors import UserError
from smallbatch.files import read_json
from smallbatch.recorded import Row, parsed
from smallbatch.status import Status

COMMAND = "# smallbatch train"  # config.yaml begins with it
SHOWN = re.compile(rb'^.*"name": "(?:val/|metrics/|train/loss").*$', re.M)
NUMBERS = ("images", "seconds", "value", "logsnr", "n")
LOG_LINES = 20
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f]")  # colours, cursors and bells of a terminal


class Point(NamedTuple):
    """A figure when so many images had been trained on, in so many seconds."""

    images: int
    seconds: float
    value: float


class Score(NamedTuple):
    """What metrics/*.json says beside a value."""

    floor: float | None
    marks: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """`bins` are values per log-SNR by metric and images, `spent` the trained rows per log-SNR."""

    folder: Path
    command: str
    settings: Mapping[str, str]  # as typed, in the order of their names
    seed: int
    status: Status
    log: str = ""  # the end of job.log, of a run that did not finish
    price: float | None = None  # of an hour on one device
    points: Mapping[str, list[Point]] = field(default_factory=dict)
    bins: Mapping[str, Mapping[int, Mapping[float, float]]] = field(default_factory=dict)
    spent: Mapping[float, int] = field(default_factory=dict)
    scores: Mapping[str, Score] = field(default_factory=dict)

    @property
    def device_hours(self) -> float:
        return self.status.seconds * self.status.devices / 3600

    @property
    def money(self) -> float | None:
        return None if self.price is None else self.device_hours * self.price

    @property
    def flops(self) -> int | None:
        return self.status.flops_per_image and self.status.flops_per_image * self.status.images


def folders(below: Path) -> Iterator[Path]:
    """The run folders there, in the order of their names; none lies in another."""
    for folder, names, files in os.walk(below):
        if "metrics.jsonl" in files or "status.json" in files:
            names.clear()
            yield Path(folder)
        names.sort()


def read(folder: Path, ignored: Collection[str], price: float | None = None) -> Run:
    """`ignored` settings change no result; a `price` comes before the run's own. UserError: nothing tells its words."""
    config = folder / "config.yaml"
    head, _, body = config.read_text(errors="replace").partition("\n") if config.is_file() else ("", "", "")
    settings = {k: v for k, v in command(head, config).items() if k.split(".")[0] not in ignored}
    try:
        seed = int(settings.pop("seed", 0))
    except ValueError:
        raise UserError(f"{config}: seed={command(head, config)['seed']} is no whole number") from None
    rows = shown(folder)
    now = state(folder, rows)
    log = "" if now.state in ("finished", "training") else tail(folder / "job.log")
    own = re.search(r"^price:\n  per_device_hour: (\d+(?:\.\d+)?(?:e[+-]?\d+)?)$", body, re.M)
    price = float(own[1]) if price is None and own else price
    points, bins, spent = figures(rows)
    scores, drawn = judged(folder / "metrics", now)
    line = head.removeprefix("# ")
    return Run(folder, line, settings, seed, now, log, price, points | drawn, bins, spent, scores)


def command(head: str, path: Path) -> dict[str, str]:
    """The settings typed after `smallbatch train`; of one typed twice, the last."""
    if not head.startswith(COMMAND):
        raise UserError(f"{path} does not begin with the command that made it: train it again")
    try:
        words = shlex.split(head.removeprefix(COMMAND))
    except ValueError as error:
        raise UserError(f"{path} begins with a command that cannot be read ({error}): train it again") from None
    pairs = (word.lstrip("+").partition("=") for word in words)
    return dict(sorted({name: value for name, _, value in pairs}.items()))


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


def judged(folder: Path, now: Status) -> tuple[dict[str, Score], dict[str, list[Point]]]:
    """What is to know of every score, newest last; and the scores that `evaluate` gave the finished model."""
    scores: dict[str, Score] = {}
    drawn: dict[str, list[Point]] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            found = {str(one["name"]): one for one in read_json(path)["metrics"]}
            values = {name: one["value"] for name, one in found.items() if finite(one["value"])}
            marks = {name: tuple(str(mark) for mark in found[name].get("marks", ())) for name in values}
        except (ValueError, TypeError, KeyError, AttributeError, OSError):
            continue  # no file of ours
        while_training = path.stem.isdecimal()  # named after its images; its values are in metrics.jsonl, too
        for name, value in values.items():
            metric = f"metrics/{name}" if while_training else f"metrics/{name} of {path.stem}"
            of_real = values.get(name.replace("@", "_floor@"))
            scores[metric] = Score(of_real, marks[name])
            if not while_training:
                drawn[metric] = [Point(now.images, now.seconds, value)]
    return scores, drawn


def state(folder: Path, rows: list[Row]) -> Status:
    """What status.json says; of a run from before there was one, what its events say."""
    now = status.read(folder) or from_events(folder, rows)
    if not all(map(finite, (now.images, now.seconds, now.devices, now.flops_per_image or 0))):
        raise UserError(f"{folder / 'status.json'} cannot be read: remove it; the run's own command writes it again")
    if now.state == "training" and not held(folder):
        return Status(**{**vars(now), "state": "interrupted", "error": "its process ended without a word"})
    return now


def from_events(folder: Path, rows: list[Row]) -> Status:
    events = folder / "events.log"
    last = events.read_text(errors="replace").splitlines()[-1:] if events.is_file() else []
    images, seconds = max(((row["images"], row["seconds"]) for row in rows), default=(0, 0.0))
    return Status("finished" if any(" finished at " in line for line in last) else "interrupted", images, seconds)


def held(folder: Path) -> bool:
    """Whether a process trains there."""
    if not (folder / ".lock").is_file():
        return False
    try:
        with open(folder / ".lock") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def tail(path: Path) -> str:
    """The last lines of a log, as a terminal would have left them."""
    if not path.is_file():
        return ""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 65536))
        text = file.read().decode(errors="replace")
    lines = [CONTROL.sub("", line.rsplit("\r", 1)[-1]) for line in text.replace("\r\n", "\n").split("\n")]
    return "\n".join([line for line in lines if line.strip()][-LOG_LINES:])
