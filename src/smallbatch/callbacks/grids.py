"""Sample grids while training: the same noise every time, one column per class, or per image of which it is told."""

from pathlib import Path

import lightning as L
import torch

from smallbatch import pictures
from smallbatch.callbacks.cadence import ImagesCallback
from smallbatch.callbacks.ema import averaged
from smallbatch.callbacks.record import show
from smallbatch.data.images import enlarged, to_pixels
from smallbatch.data.module import ImageData
from smallbatch.errors import UserError
from smallbatch.module import DiffusionModule
from smallbatch.notation import Condition
from smallbatch.randomness import SampleNoise
from smallbatch.sampler import Sampler


class SampleGrid(ImagesCallback):
    """With the averaged weights, on rank 0: `rows` samples of every class, or of ten columns where there are none.

    Of a network that is told of images: of `rows` times ten held-out ones the small one, where it enlarges; what it
    makes of that or of the caption; and the truth below it.
    """

    def __init__(self, sampler: Sampler, every_images: int | None, rows: int = 4, seed: int = 0):
        super().__init__(every_images)
        if rows < 1:
            raise UserError(f"samples.rows={rows} must be at least 1")
        self.sampler, self.rows, self.seed = sampler, rows, seed

    def on_due(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        module.eval()
        with averaged(trainer, module), trainer.precision_plugin.forward_context():  # which takes every rank
            draw = self.beside if module.denoiser.spec.told_by_data else self.draw
            picture = draw(module, trainer.datamodule) if trainer.is_global_zero else None
        module.train()
        if picture:
            folder = Path(trainer.default_root_dir) / "samples"
            pictures.save(picture, folder / f"{module.images:09d}.png")
            show(trainer, module, "samples", picture)
        trainer.strategy.barrier()

    def draw(self, module: DiffusionModule, data: ImageData) -> pictures.PILImage.Image:
        classes = module.denoiser.spec.classes
        columns = min(classes, 20) or 10
        label = torch.arange(self.rows * columns, device=module.device) % columns if classes else None
        samples = self.sampler(module.denoiser, self.noise(module, self.rows * columns), Condition(label))
        return pictures.grid(to_pixels(data.pictured(samples)), columns)

    def beside(self, module: DiffusionModule, data: ImageData) -> pictures.PILImage.Image:
        n = 10 * self.rows
        truth, condition = data.around(torch.arange(n), module.device)
        samples = self.sampler(module.denoiser, self.noise(module, n), condition)
        small = [] if condition.image is None else [enlarged(condition.image, truth.shape[-1], "nearest")]
        shown = [*small, *map(data.pictured, (samples, truth))]
        return pictures.stacked([to_pixels(part) for part in shown], columns=10)

    def noise(self, module: DiffusionModule, n: int) -> SampleNoise:
        spec = module.denoiser.spec
        return SampleNoise(self.seed, range(n), (spec.channels, spec.size, spec.size), module.device)
