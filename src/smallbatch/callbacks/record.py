"""The local record of a run: every figure is a line of metrics.jsonl; other loggers mirror it."""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from smallbatch.files import replacing


@dataclass(frozen=True)
class Figure:
    """One number: `n` is how many rows or images it rests on, `logsnr` the centre of its bin where it has one."""

    name: str
    value: float
    n: int | None = None
    logsnr: float | None = None

    @property
    def label(self) -> str:
        return self.name if self.logsnr is None else f"{self.name}/logsnr={self.logsnr:+.1f}"


class MetricsFile(Logger):
    """metrics.jsonl and events.log in the run folder. Figures come by `write`, so that none is thinned or averaged."""

    def __init__(self, folder: str | Path):
        super().__init__()
        self.folder = Path(folder)

    @property
    def name(self) -> str:
        return self.folder.parent.name

    @property
    def version(self) -> str:
        return self.folder.name

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Lightning's own epoch counters: nothing that a figure does not say better."""

    @rank_zero_only
    def write(self, figures: Iterable[Figure], images: int, step: int, seconds: float) -> None:
        lines = []
        for figure in figures:
            row = {"images": images, "step": step, "seconds": round(seconds, 3), "name": figure.name}
            row |= {"value": figure.value, "n": figure.n, "logsnr": figure.logsnr}
            lines.append(json.dumps({k: v for k, v in row.items() if v is not None}) + "\n")
        with open(self.folder / "metrics.jsonl", "a") as file:
            file.writelines(lines)

    @rank_zero_only
    def event(self, text: str) -> None:
        with open(self.folder / "events.log", "a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")


def read(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl; a line that a crash cut short is left out."""
    path = folder / "metrics.jsonl"
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def rewind(folder: Path, images: int) -> None:
    """Drops what was recorded beyond `images`: the resumed run will record it again."""
    kept = [row for row in read(folder) if row["images"] <= images]
    with replacing(folder / "metrics.jsonl") as partial:
        partial.write_text("".join(json.dumps(row) + "\n" for row in kept))


def record(trainer: L.Trainer, module: L.LightningModule, figures: list[Figure]) -> None:
    """Writes figures to the local record, and then to its mirrors with images as their step."""
    for logger in trainer.loggers:
        if isinstance(logger, MetricsFile):
            logger.write(figures, module.images, module.global_step, module.seconds)
        else:
            logger.log_metrics({f.label: f.value for f in figures}, step=module.images)
