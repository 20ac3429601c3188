"""Run folders read back: the words that made each, and what it measured last."""

import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from smallbatch.callbacks.record import read
from smallbatch.errors import UserError

Label = str  # the words in which a run differs from the others, its seed left out


@dataclass(frozen=True)
class Run:
    folder: Path
    words: tuple[str, ...]
    seed: int
    images: int  # at the last measurement of the metric
    seconds: float  # spent in training until then
    mean: float
    per_logsnr: Mapping[float, float]


def load(folder: Path, metric: str) -> Run | None:
    """None where the metric was never measured."""
    rows = [row for row in read(folder) if row["name"] == metric]
    if not rows:
        return None
    last = [row for row in rows if row["images"] == rows[-1]["images"]]
    per_logsnr = {row["logsnr"]: row["value"] for row in last if "logsnr" in row}
    (whole,) = (row for row in last if "logsnr" not in row)
    words = command(folder)
    seed = next((int(word.removeprefix("seed=")) for word in words if word.startswith("seed=")), 0)
    kept = tuple(word for word in words if not word.startswith("seed="))
    return Run(folder, kept, seed, whole["images"], whole["seconds"], whole["value"], per_logsnr)


def command(folder: Path) -> list[str]:
    """The words after `smallbatch train`, from the head of config.yaml."""
    head = (folder / "config.yaml").read_text().split("\n", 1)[0]
    if not head.startswith("# smallbatch train"):
        raise UserError(f"{folder}/config.yaml does not begin with the command that made it: train it again")
    return shlex.split(head.removeprefix("# smallbatch train"))


def grouped(runs: Iterable[Run]) -> dict[Label, dict[int, Run]]:
    """Runs by label, then by seed."""
    runs = list(runs)
    shared = set.intersection(*(set(run.words) for run in runs))
    groups: dict[Label, dict[int, Run]] = defaultdict(dict)
    for run in runs:
        groups[" ".join(word for word in run.words if word not in shared) or "as it is"][run.seed] = run
    return dict(groups)
