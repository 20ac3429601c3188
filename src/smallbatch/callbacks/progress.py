"""A progress bar that counts images."""

import sys
import time

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from smallbatch.callbacks.cadence import StepCallback
from smallbatch.module import DiffusionModule


class ProgressBar(StepCallback):
    """Moves a few times a second; without a terminal, a line every `quiet_seconds`."""

    def __init__(self, images: int | None, refresh_seconds: float = 0.3, quiet_seconds: float = 15.0):
        self.total, self.refresh = images, refresh_seconds if sys.stderr.isatty() else quiet_seconds
        self.bar: Progress | None = None
        self.last = 0.0

    def on_train_start(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        self.started, self.last = (time.monotonic(), module.images), time.monotonic()
        if trainer.is_global_zero and sys.stderr.isatty():
            columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("images")]
            columns += [TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}")]
            self.bar = Progress(*columns, console=Console(stderr=True))
            self.bar.add_task("train", total=self.total, completed=module.images, note="")
            self.bar.start()

    def on_step(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        over = module.progress >= 1 or module.interrupted
        if not trainer.is_global_zero or (time.monotonic() - self.last < self.refresh and not over):
            return
        self.last = time.monotonic()
        clock, images = self.started
        rate = (module.images - images) / max(self.last - clock, 1e-9)
        note = f"loss {module.observed.loss.mean().item():.4f}  {rate:,.0f} images/s"
        if self.bar:
            self.bar.update(self.bar.task_ids[0], completed=module.images, note=note)
        else:
            print(f"train {module.progress:4.0%}  {module.images:,} images  {note}", file=sys.stderr, flush=True)

    def teardown(self, trainer: L.Trainer, module: DiffusionModule, stage: str) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None
