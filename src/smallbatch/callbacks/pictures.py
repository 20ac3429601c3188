"""Pictures of a run, drawn from its own record, in the run folder and in its mirrors."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
from PIL.Image import Image

from smallbatch import pictures, run_plots
from smallbatch.callbacks.cadence import ImagesCallback
from smallbatch.callbacks.record import show
from smallbatch.mixtures import HEADS
from smallbatch.module import DiffusionModule
from smallbatch.recorded import read
from smallbatch.run_plots import BIN, Curve, Heat

SHARE, GUESS = 0.02, 0.5  # of the time, at most, goes into drawing; seconds that the first is thought to take
COLUMNS = 60  # of a heat map of what was drawn, at most: fewer rows a column are noise
IN_V = "Training error in v"
OF_HEADS = {
    "v_mse": IN_V,
    "weight": "Weight in the fused velocity",
    "wins": "Share of wins: smallest error in v",
    "wins_raw": "Share of wins: smallest error in its own space",
}

Row = Mapping[str, Any]


class Pictures(ImagesCallback):
    """NAME.png in the run folder, `pictures/NAME` in the mirrors; on rank 0. Comes after all that records.

    Left out where drawing would take too much of the time; never at the end.
    """

    def __init__(self, every_images: int | None):
        super().__init__(every_images)
        self.last, self.cost = time.monotonic(), GUESS

    def on_train_start(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        self.last = time.monotonic()

    def due(self, module: DiffusionModule) -> bool:
        spent_little = SHARE * (time.monotonic() - self.last) > self.cost
        return super().due(module) and (spent_little or module.progress >= 1)

    def on_due(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        if trainer.is_global_zero:
            begun, folder = time.monotonic(), Path(trainer.default_root_dir)
            for name, picture in draw(read(folder)).items():
                pictures.save(picture, folder / f"{name}.png")
                show(trainer, module, f"pictures/{name}", picture)
            self.last = time.monotonic()
            self.cost = self.last - begun


def draw(rows: list[Row]) -> dict[str, Image]:
    """By name, what a record has something for."""
    binned: dict[str, list[Row]] = {}
    for row in rows:
        if "logsnr" in row:
            binned.setdefault(row["name"], []).append(row)
    drawn = {}
    if "val/v_mse" in binned:
        drawn |= held_out(binned)
    if "train/loss" in binned:
        columns, whole = densities(binned["train/loss"])
        drawn["timesteps_over_images"] = run_plots.density(columns, whole, "Where training time goes")
    if "heads/v_weight" in binned:
        drawn |= heads(binned)
    return drawn


def held_out(binned: Mapping[str, list[Row]]) -> dict[str, Image]:
    errors = {name: latest(binned[f"val/{name}_mse"]) for name in ("x0", "eps", "v")}
    over, images = by_images(binned["val/v_mse"]), binned["val/v_mse"][-1]["images"]
    title, unit = "Held-out error in v while training", "mean squared error per value"
    return {
        "loss_per_logsnr": run_plots.curves(errors, f"Held-out error per noise level after {images:,} images"),
        "loss_over_images": run_plots.heat(over, title, unit),
    }


def heads(binned: Mapping[str, list[Row]]) -> dict[str, Image]:
    parts = {
        title: {head: latest(binned[f"heads/{head}_{what}"]) for head in HEADS} for what, title in OF_HEADS.items()
    }
    images = binned["heads/v_weight"][-1]["images"]
    weights = {head: by_images(binned[f"heads/{head}_weight"]) for head in HEADS}
    return {
        "heads_per_logsnr": run_plots.panels(parts, [IN_V], f"The heads of the prediction around {images:,} images"),
        "heads_over_images": run_plots.heats(weights, "What each head counts in the fused velocity", "weight"),
    }


def latest(rows: list[Row]) -> Curve:
    """The values of the last record."""
    return {row["logsnr"]: row["value"] for row in rows if row["images"] == rows[-1]["images"]}


def by_images(rows: list[Row]) -> Heat:
    columns: dict[int, dict[float, float]] = {}
    for row in rows:
        columns.setdefault(row["images"], {})[row["logsnr"]] = row["value"]
    return columns


def densities(rows: list[Row]) -> tuple[Heat, Curve]:
    """Share of rows per unit of log-SNR: between records, some of them put together, and of all."""
    nowhere = dict.fromkeys(sorted({row["logsnr"] for row in rows}), 0)
    counts: dict[int, dict[float, int]] = {}
    for row in rows:
        counts.setdefault(row["images"], dict(nowhere))[row["logsnr"]] = row["n"]
    ends, together = list(counts), math.ceil(len(counts) / COLUMNS)
    parts = [ends[i : i + together] for i in range(0, len(ends), together)]
    return {part[-1]: shares(counts[end] for end in part) for part in parts}, shares(counts.values())


def shares(counts: Iterable[Mapping[float, int]]) -> Curve:
    total: Counter[float] = Counter()
    for count in counts:
        total.update(count)
    return {logsnr: n / total.total() / BIN for logsnr, n in total.items()}
