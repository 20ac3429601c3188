"""The local record of a run: every figure is a line of metrics.jsonl; other loggers mirror it."""

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from PIL.Image import Image

from smallbatch.files import append


@dataclass(frozen=True)
class Figure:
    """One number: `n` is how many rows or images it rests on, `logsnr` the centre of its bin where it has one."""

    name: str
    value: float
    n: int | None = None
    logsnr: float | None = None

    @property
    def label(self) -> str:
        """Its name in a dashboard, where all bins are one section: by_logsnr/val/v_mse/minus_05."""
        if self.logsnr is None:
            return self.name
        return f"by_logsnr/{self.name}/{'minus' if self.logsnr < 0 else 'plus'}_{abs(self.logsnr):02.0f}"


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
        append(self.folder / "metrics.jsonl", "".join(lines))

    @rank_zero_only
    def event(self, text: str) -> None:
        append(self.folder / "events.log", f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    @rank_zero_only
    def warn(self, text: str) -> None:
        """An event that is also said at once."""
        self.event(text)
        print(text, file=sys.stderr, flush=True)


def record(trainer: L.Trainer, module: L.LightningModule, figures: list[Figure]) -> None:
    """Writes figures to the local record, and then to its mirrors with images as their step."""
    local, *mirrors = trainer.loggers
    local.write(figures, module.images, module.global_step, module.seconds)
    when = {"images": module.images, "seconds": module.seconds}
    for mirror in mirrors:
        mirror.log_metrics(when | {figure.label: figure.value for figure in figures}, step=module.images)


def show(trainer: L.Trainer, module: L.LightningModule, name: str, picture: Image) -> None:
    """Gives the mirrors a picture that is in the run folder."""
    for mirror in trainer.loggers[1:]:
        mirror.log_image(name, picture, module.images)
