"""How fast training goes: images/s, FLOP/s, and the share of the device's peak where that is known."""

import time

import lightning as L
import torch
from lightning.fabric.utilities.throughput import get_available_flops

from smallbatch.callbacks.cadence import ImagesCallback
from smallbatch.callbacks.record import Figure, record
from smallbatch.module import DiffusionModule

H200 = {torch.bfloat16: 989e12, torch.float32: 67e12}  # Lightning does not know it by its driver's name


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """FLOP/s that a device could do at most; None where nobody knows."""
    if "H200" in torch.cuda.get_device_name(device):
        return H200[dtype]
    return get_available_flops(device, dtype)


class Speed(ImagesCallback):
    """Over the images since the last record, validation and sampling included. Its figures begin with `speed/`.

    `flops_per_image` is what one row costs forward and backward.
    """

    def __init__(self, flops_per_image: int, every_images: int):
        super().__init__(every_images)
        self.flops_per_image = flops_per_image
        self.since: tuple[float, int] | None = None  # clock, images

    def on_train_start(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        self.since = time.monotonic(), module.images

    def on_due(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        (clock, images), self.since = self.since, (time.monotonic(), module.images)
        rate = (module.images - images) / max(self.since[0] - clock, 1e-9)
        figures = [Figure("speed/images_per_second", rate), Figure("speed/flops", rate * self.flops_per_image)]
        if module.device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(module.device)
            figures.append(Figure("speed/peak_memory_bytes", memory))
            peak = peak_flops(module.device, torch.bfloat16 if "bf16" in trainer.precision else torch.float32)
            if peak is not None:
                figures.append(Figure("speed/mfu", rate * self.flops_per_image / peak / trainer.world_size))
        record(trainer, module, figures)
