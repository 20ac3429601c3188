"""Sample grids while training: the same noise every time, one column per class."""

from pathlib import Path

import lightning as L
import torch

from smallbatch import pictures
from smallbatch.callbacks.cadence import ImagesCallback
from smallbatch.callbacks.ema import averaged
from smallbatch.callbacks.record import show
from smallbatch.data.images import to_pixels
from smallbatch.errors import UserError
from smallbatch.module import DiffusionModule
from smallbatch.notation import Condition
from smallbatch.randomness import SampleNoise
from smallbatch.sampler import Sampler


class SampleGrid(ImagesCallback):
    """With the averaged weights, on rank 0: `rows` samples of every class, or of ten columns where there are none."""

    def __init__(self, sampler: Sampler, every_images: int | None, rows: int = 4, seed: int = 0):
        super().__init__(every_images)
        if rows < 1:
            raise UserError(f"samples.rows={rows} must be at least 1")
        self.sampler, self.rows, self.seed = sampler, rows, seed

    def on_due(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        module.eval()
        with averaged(trainer, module), trainer.precision_plugin.forward_context():  # which takes every rank
            picture = self.draw(module) if trainer.is_global_zero else None
        module.train()
        if picture:
            folder = Path(trainer.default_root_dir) / "samples"
            pictures.save(picture, folder / f"{module.images:09d}.png")
            show(trainer, module, "samples", picture)
        trainer.strategy.barrier()

    def draw(self, module: DiffusionModule) -> pictures.PILImage.Image:
        spec = module.denoiser.spec
        columns = min(spec.classes, 20) or 10
        n = self.rows * columns
        label = torch.arange(n, device=module.device) % columns if spec.classes else None
        noise = SampleNoise(self.seed, range(n), (spec.channels, spec.size, spec.size), module.device)
        return pictures.grid(to_pixels(self.sampler(module.denoiser, noise, Condition(label))), columns)
