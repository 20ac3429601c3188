"""Stops a run whose loss or gradients are not finite."""

import lightning as L

from smallbatch.callbacks.cadence import StepCallback
from smallbatch.errors import UserError
from smallbatch.guard import Guard
from smallbatch.module import DiffusionModule


class StopOnNonFinite(StepCallback):
    """Looks every `every_steps` optimizer steps (a look waits for the device), and before a checkpoint is written."""

    def __init__(self, every_steps: int = 1):
        if every_steps < 1:
            raise UserError(f"check_finite_every_steps={every_steps} must be at least 1")
        self.every_steps, self.guard = every_steps, Guard()

    def on_step(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        self.guard.watch(module.global_step, module.observed, module.grad_norm)
        if module.global_step % self.every_steps == 0 or module.progress >= 1 or module.interrupted:
            self.guard.check()

    def on_save_checkpoint(self, trainer: L.Trainer, module: DiffusionModule, checkpoint: dict) -> None:
        self.guard.check()
