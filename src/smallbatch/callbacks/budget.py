"""How long to train, in images, minutes and money: whichever is spent first."""

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

    Money is device-hours, over all resumptions, times `price_per_device_hour`, in whatever unit that has.
    """

    def __init__(
        self,
        images: int | None = None,
        minutes: float | None = None,
        money: float | None = None,
        price_per_device_hour: float | None = None,
        devices: int = 1,
        nodes: int = 1,
    ):
        if images is None and minutes is None and money is None:
            raise UserError("budget: give budget.images, budget.minutes or budget.money")
        limits = {"budget.images": images, "budget.minutes": minutes, "budget.money": money}
        for name, value in (limits | {"price.per_device_hour": price_per_device_hour}).items():
            if value is not None and value <= 0:
                raise UserError(f"{name}={value} must be above 0")
        if money is not None and price_per_device_hour is None:
            raise UserError(f"budget.money={money} needs a price: give price.per_device_hour=...")
        self.images, self.minutes, self.money = images, minutes, money
        self.price, self.devices = price_per_device_hour, devices * nodes
        self.asked: int | None = None  # the signal that asked to stop
        self._seconds_before, self._device_seconds_before, self._resumed_at = 0.0, 0.0, time.monotonic()
        self._handlers: dict[int, Any] = {}

    @property
    def seconds(self) -> float:
        """Time spent in training, over all resumptions."""
        return self._seconds_before + time.monotonic() - self._resumed_at

    @property
    def device_seconds(self) -> float:
        """The same, times the devices that each resumption had."""
        return self._device_seconds_before + self.devices * (time.monotonic() - self._resumed_at)

    def spent(self, images: int, seconds: float, device_seconds: float) -> float:
        """The share of the budget, at most 1."""
        shares = [images / self.images if self.images else 0.0, seconds / 60 / self.minutes if self.minutes else 0.0]
        shares.append(device_seconds / 3600 * self.price / self.money if self.money else 0.0)
        return min(max(shares), 1.0)

    def on_train_start(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        self._resumed_at = time.monotonic()
        module.progress = self.spent(module.images, *self._agreed(trainer))
        self._handlers = {number: signal.signal(number, self._ask) for number in SIGNALS}

    def on_step(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        module.seconds = self.seconds
        module.progress = self.spent(module.images, *self._agreed(trainer))
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
        return {"seconds": self.seconds, "device_seconds": self.device_seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self._seconds_before, self._device_seconds_before = state_dict["seconds"], state_dict["device_seconds"]

    def _agreed(self, trainer: L.Trainer) -> tuple[float, float]:
        """Seconds and device-seconds by rank 0's clock, where the clock decides."""
        if not (self.minutes or self.money):
            return 0.0, 0.0
        return trainer.strategy.broadcast((self.seconds, self.device_seconds))

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None:
            raise KeyboardInterrupt
        self.asked = number
