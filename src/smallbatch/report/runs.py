"""Run folders read back: the settings that made each, and what it measured last."""

import shlex
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from smallbatch.callbacks.record import read
from smallbatch.errors import UserError

Label = str  # the settings in which a run differs from the others, its seed left out


@dataclass(frozen=True)
class Run:
    folder: Path
    settings: Mapping[str, str]  # as typed, in the order of their names
    seed: int
    images: int  # at the last measurement of the metric
    seconds: float  # spent in training until then
    mean: float
    per_logsnr: Mapping[float, float]


def load(folder: Path, metric: str, ignored: Collection[str]) -> Run | None:
    """None where the metric was never measured. `ignored` settings change no result."""
    rows = [row for row in read(folder) if row["name"] == metric]
    if not rows:
        return None
    last = [row for row in rows if row["images"] == rows[-1]["images"]]
    per_logsnr = {row["logsnr"]: row["value"] for row in last if "logsnr" in row}
    whole = [row for row in last if "logsnr" not in row]
    if not whole:
        raise UserError(f"metric={metric} has no mean over all log-SNR to compare: use one that has, as val/v_mse")
    settings = {name: value for name, value in command(folder).items() if name.split(".")[0] not in ignored}
    seed = int(settings.pop("seed", 0))
    return Run(folder, settings, seed, rows[-1]["images"], whole[-1]["seconds"], whole[-1]["value"], per_logsnr)


def command(folder: Path) -> dict[str, str]:
    """The settings typed after `smallbatch train`, from the head of config.yaml; of one typed twice, the last."""
    path = folder / "config.yaml"
    head = path.read_text().split("\n", 1)[0] if path.exists() else ""
    if not head.startswith("# smallbatch train"):
        raise UserError(f"{path} does not begin with the command that made it: train it again")
    words = shlex.split(head.removeprefix("# smallbatch train"))
    pairs = (word.lstrip("+").partition("=") for word in words)
    return dict(sorted({name: value for name, _, value in pairs}.items()))


def grouped(runs: Iterable[Run]) -> dict[Label, dict[int, Run]]:
    """Runs by label, then by seed."""
    runs = list(runs)
    shared = set.intersection(*(set(run.settings.items()) for run in runs))
    if len(shared) == len(runs[0].settings):  # all are alike
        shared = set()
    groups: dict[Label, dict[int, Run]] = defaultdict(dict)
    for run in runs:
        label = " ".join(f"{name}={value}" for name, value in run.settings.items() if (name, value) not in shared)
        twin = groups[label or "as it is"].setdefault(run.seed, run)
        if twin is not run:
            raise UserError(f"{twin.folder} and {run.folder} have the same settings and seed: remove one of them")
    return dict(groups)
