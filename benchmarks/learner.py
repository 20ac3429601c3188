"""A module under the optimizer step that `train` takes between two records, on one batch that stays on the device."""

import time

import torch

from smallbatch.ema import Average, trainable
from smallbatch.module import DiffusionModule
from smallbatch.notation import Batch
from smallbatch.randomness import Step


class Learner:
    """It draws, goes forward and backward, clips, updates the weights and averages, and shows what adapts its rows."""

    def __init__(self, module: DiffusionModule, averages: list[Average], batch: Batch, bf16: bool, progress: float):
        self.module, self.averages, self.batch, self.bf16 = module, averages, batch, bf16
        self.module.progress, self.index = progress, 0
        self.optimizer, self.device = module.configure_optimizers(), batch.x0.device
        self.parameters = trainable(module.denoiser.network)

    def step(self) -> None:
        module, rows = self.module, len(self.batch.x0)
        now = Step(module.seed, self.index, self.index * rows, module.progress)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            loss = module.objective(module.denoiser, *self.batch, now)
        loss.value.backward()
        module.on_before_optimizer_step(self.optimizer)
        self.optimizer.step()
        self.optimizer.zero_grad()
        module.objective.observe(loss.observed)
        module.denoiser.prediction.observe(loss.observed)
        self.index += 1
        for average in self.averages:
            average.update(self.parameters, self.index * rows, rows)

    def turn(self, steps: int) -> float:
        """Seconds a step."""
        start = self._now()
        for _ in range(steps):
            self.step()
        return (self._now() - start) / steps

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
