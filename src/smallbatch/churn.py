"""Churn: noise added back between the steps of any solver."""

import math

from smallbatch.errors import UserError
from smallbatch.notation import Image, NoiseLevel
from smallbatch.schedules import NoiseSchedule
from smallbatch.solvers import Noise, Stir, still


class Churn:
    """Raises sigma / alpha before a step by fresh noise. Karras et al. 2022 (2206.00364), algorithm 2.

    Goes with any solver; multistep ones begin anew at a raised level. `amount`, `low`, `high` and `noise_scale` are
    S_churn, S_min, S_max and S_noise. A level that the schedule lacks is its nearest one.
    """

    def __init__(self, amount: float = 0.0, low: float = 0.0, high: float = math.inf, noise_scale: float = 1.0):
        if amount < 0 or low > high:
            raise UserError(f"churn: {amount=} must be at least 0, and {low=} at most {high=}")
        self.amount, self.low, self.high, self.noise_scale = amount, low, high, noise_scale

    def __call__(self, schedule: NoiseSchedule, steps: int) -> Stir:
        if self.amount == 0:
            return still
        factor = 1 + min(self.amount / steps, math.sqrt(2) - 1)

        def stir(x: Image, now: NoiseLevel, noise: Noise) -> tuple[Image, NoiseLevel]:
            ratio = now.sigma / now.alpha
            if not ((self.low <= ratio) & (ratio <= self.high)).all():
                return x, now
            raised = schedule(schedule.time(now.logsnr.flatten() - 2 * math.log(factor)))
            added = ((raised.sigma / raised.alpha).square() - ratio.square()).clamp(min=0).sqrt()
            return raised.alpha * (x / now.alpha + self.noise_scale * added * noise()), raised

        return stir
