"""How long to train, in images, minutes or both: whichever is spent first."""

import signal
import time
from types import FrameType
from typing import Any

import lightning as L

from smallbatch.callbacks.cadence import StepCallback
from smallbatch.errors import UserError
from smallbatch.module import DiffusionModule

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Budget(StepCallback):
    """Sets `module.progress`, and stops training where an accumulation window ends: budget spent, or asked by a signal.

    The first Ctrl-C, SIGTERM or SIGUSR1 lets the optimizer step finish and a checkpoint be written; the second acts
    at once. Comes first among the callbacks, so that the others see the progress of this step.
    """

    def __init__(self, images: int | None = None, minutes: float | None = None):
        if images is None and minutes is None:
            raise UserError("budget: give budget.images or budget.minutes")
        for name, value in {"images": images, "minutes": minutes}.items():
            if value is not None and value <= 0:
                raise UserError(f"budget.{name}={value} must be above 0")
        self.images, self.minutes = images, minutes
        self.asked: int | None = None  # the signal that asked to stop
        self._seconds_before, self._resumed_at = 0.0, time.monotonic()
        self._handlers: dict[int, Any] = {}

    @property
    def seconds(self) -> float:
        """Time spent in training, over all resumptions."""
        return self._seconds_before + time.monotonic() - self._resumed_at

    def spent(self, images: int, seconds: float) -> float:
        shares = [images / self.images if self.images else 0.0, seconds / 60 / self.minutes if self.minutes else 0.0]
        return min(max(shares), 1.0)

    def on_train_start(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        self._resumed_at = time.monotonic()
        module.progress = self.spent(module.images, self._agreed_seconds(trainer))
        self._handlers = {number: signal.signal(number, self._ask) for number in SIGNALS}

    def on_step(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        module.seconds = self.seconds
        module.progress = self.spent(module.images, self._agreed_seconds(trainer))
        asked = self.asked is not None
        if trainer.world_size > 1:
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        module.interrupted = asked and module.progress < 1
        trainer.should_stop = module.interrupted or module.progress >= 1

    def teardown(self, trainer: L.Trainer, module: DiffusionModule, stage: str) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self._seconds_before = state_dict["seconds"]

    def _agreed_seconds(self, trainer: L.Trainer) -> float:
        """Rank 0's clock, where the clock decides."""
        return trainer.strategy.broadcast(self.seconds) if self.minutes else 0.0

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None:
            raise KeyboardInterrupt
        self.asked = number
