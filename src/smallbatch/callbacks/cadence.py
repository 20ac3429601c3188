"""Callbacks that act once per optimizer step, and some of them only every so many images."""

from abc import abstractmethod
from typing import Any

import lightning as L

from smallbatch.errors import UserError
from smallbatch.module import DiffusionModule


class StepCallback(L.Callback):
    """Acts after every optimizer step."""

    @abstractmethod
    def on_step(self, trainer: L.Trainer, module: DiffusionModule) -> None: ...

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if module.window_ended:
            self.on_step(trainer, module)


class ImagesCallback(StepCallback):
    """Acts when a multiple of `every_images` is passed and when the budget is spent; None: only then."""

    def __init__(self, every_images: int | None):
        if every_images is not None and every_images < 1:
            raise UserError(f"{type(self).__name__}: {every_images=} must be at least 1, or null for the end only")
        self.every_images = every_images

    def due(self, module: DiffusionModule) -> bool:
        return module.progress >= 1 or passed(module.images, module.batch, self.every_images)

    @abstractmethod
    def on_due(self, trainer: L.Trainer, module: DiffusionModule) -> None: ...

    def on_step(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        if self.due(module):
            self.on_due(trainer, module)


def passed(images: int, batch: int, every: int | None) -> bool:
    """Whether the last `batch` of `images` rows passed a multiple of `every`."""
    return every is not None and images // every != (images - batch) // every
