"""Run folders read back: the settings that made each, and all that a report shows of it."""

import os
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from smallbatch.errors import UserError, printable
from smallbatch.files import inside, last_lines
from smallbatch.report.figures import Point, Score, figures, judged, shown
from smallbatch.report.outcome import outcome
from smallbatch.status import Status

COMMAND = re.compile(r"# (smallbatch (?:train|import \w+))(?: |$)")  # config.yaml begins with it
LOG_LINES = 20


@dataclass(frozen=True)
class Run:
    """`bins` are values per log-SNR by metric and images, `spent` the trained rows per log-SNR.

    Their images are its own; or, restated, others of which one of its own is a `share`.
    """

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
    share: float = 1.0

    @property
    def device_hours(self) -> float:
        return self.status.device_seconds / 3600

    @property
    def money(self) -> float | None:
        return None if self.price is None else self.device_hours * self.price

    @property
    def images(self) -> int:
        """How far it came, as its points count."""
        return round(self.status.images * self.share)

    @property
    def flops_per_image(self) -> float | None:
        """Of one image as its points count."""
        return self.status.flops_per_image and self.status.flops_per_image / self.share

    @property
    def flops(self) -> int | None:
        return self.status.flops_per_image and self.status.flops_per_image * self.status.images


def folders(below: Path) -> Iterator[Path]:
    """The run folders there, in the order of their names; none lies in another."""
    for folder, names, files in os.walk(below):
        if "status.json" in files:
            names.clear()
            yield Path(folder)
        names.sort()


def read(folder: Path, ignored: Collection[str], price: float | None = None) -> Run:
    """`ignored` settings change no result; a `price` comes before the run's own. UserError: nothing tells its words."""
    config = folder / "config.yaml"
    head, _, body = config.read_text(errors="replace").partition("\n") if config.is_file() else ("", "", "")
    command, typed = words(head, config)
    settings = {name: value for name, value in pairs(typed).items() if group(name) not in ignored}
    typed_seed = settings.pop("seed", "0")
    try:
        seed = int(typed_seed)
    except ValueError:
        raise UserError(f"{config}: seed={typed_seed} is no whole number") from None
    rows = shown(folder)
    now = outcome(folder, rows)
    log = folder / "job.log"
    told = now.state in ("interrupted", "failed") and inside(folder, log)
    end = "\n".join(last_lines(log, LOG_LINES)) if told else ""
    own = re.search(r"^price:\n  per_device_hour: (\d+(?:\.\d+)?(?:e[+-]?\d+)?)$", body, re.M)
    price = float(own[1]) if price is None and own else price
    points, bins, spent = figures(rows)
    scores, drawn = judged(folder / "metrics", rows)
    line = printable(f"{command} {shlex.join(typed)}".rstrip())
    return Run(folder, line, settings, seed, now, end, price, points | drawn, bins, spent, scores)


def words(head: str, path: Path) -> tuple[str, list[str]]:
    """The command that made the run, and the words typed after it."""
    found = COMMAND.match(head)
    if found is None:
        raise UserError(f"{path} does not begin with the command that made it: train it again")
    try:
        return found[1], shlex.split(head[found.end() :])
    except ValueError as error:
        raise UserError(f"{path} begins with a command that cannot be read ({error}): train it again") from None


def pairs(typed: Sequence[str]) -> dict[str, str]:
    """Settings in the order of their names; of one typed twice, the last."""
    split = (word.lstrip("+").partition("=") for word in typed)
    return dict(sorted({name: value for name, _, value in split}.items()))


def group(name: str) -> str:
    """`sampler` of sampler, sampler.steps, sampler/grid, sampler@here and ~sampler."""
    return re.split(r"[./@]", name.removeprefix("~"))[0]
