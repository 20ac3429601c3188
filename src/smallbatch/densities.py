"""Where training time is spent: a density turns u in [0, 1) into a time."""

import math
from abc import ABC, abstractmethod

import torch
from torch import nn

from smallbatch.errors import UserError, refuse_unless_positive
from smallbatch.notation import Observed, PerImage, Time
from smallbatch.schedules import NoiseSchedule
from smallbatch.tables import Table


class Density(nn.Module, ABC):
    """An inverse distribution function over time.

    Importance 1 means that the density changes the objective; 1 / p means that it keeps it.
    """

    @abstractmethod
    def forward(self, u: Time, schedule: NoiseSchedule, progress: float) -> tuple[Time, PerImage]: ...

    def observe(self, observed: Observed) -> None:
        """Called once per optimizer step, after it. Fixed densities learn nothing."""

    def check(self, schedule: NoiseSchedule) -> None:
        """Refuses, before training, a schedule on which it makes no sense."""


class Uniform(Density):
    """Even in t: the baseline objective."""

    def forward(self, u: Time, schedule: NoiseSchedule, progress: float) -> tuple[Time, PerImage]:
        return u, torch.ones_like(u)


class LogNormal(Density):
    """ln(sigma / alpha) ~ N(mean, std^2): changes the objective. Karras et al. 2022 (2206.00364), table 1."""

    def __init__(self, mean: float = -1.2, std: float = 1.2):
        super().__init__()
        refuse_unless_positive("timesteps", std=std)
        self.mean, self.std = mean, std

    def forward(self, u: Time, schedule: NoiseSchedule, progress: float) -> tuple[Time, PerImage]:
        return schedule.time(-2 * (self.mean + self.std * _normal(u))), torch.ones_like(u)


class LogitNormal(Density):
    """t = k s / (1 + (k - 1) s) for logit(s) ~ N(mean, std^2): changes the objective.

    Esser et al. 2024 (2403.03206), eqs. 19, 23; `shift` is their k.
    """

    def __init__(self, mean: float = 0.0, std: float = 1.0, shift: float = 1.0):
        super().__init__()
        refuse_unless_positive("timesteps", std=std)
        if shift <= 0:
            raise UserError(f"timesteps: {shift=} must lie above 0; 1 shifts nothing, more goes toward the noise")
        self.mean, self.std, self.shift = mean, std, shift

    def forward(self, u: Time, schedule: NoiseSchedule, progress: float) -> tuple[Time, PerImage]:
        return (self.mean + self.std * _normal(u) + math.log(self.shift)).sigmoid(), torch.ones_like(u)


class Laplace(Density):
    """log-SNR ~ Laplace(mean, scale): changes the objective. Hang & Gu 2024 (2407.03297)."""

    def __init__(self, mean: float = 0.0, scale: float = 0.5):
        super().__init__()
        refuse_unless_positive("timesteps", scale=scale)
        self.mean, self.scale = mean, scale

    def forward(self, u: Time, schedule: NoiseSchedule, progress: float) -> tuple[Time, PerImage]:
        side = 0.5 - _inside(u)  # more than 0: more signal than the mean
        return schedule.time(self.mean - self.scale * side.sign() * (-2 * side.abs()).log1p()), torch.ones_like(u)


class TowardNoise(Density):
    """p(t) ~ t^power: changes the objective."""

    def __init__(self, power: float = 1.0):
        super().__init__()
        self.root = 1 / (1 + _integrable(power))

    def forward(self, u: Time, schedule: NoiseSchedule, progress: float) -> tuple[Time, PerImage]:
        return u**self.root, torch.ones_like(u)


class TowardData(Density):
    """p(t) ~ (1 - t)^power: changes the objective."""

    def __init__(self, power: float = 1.0):
        super().__init__()
        self.root = 1 / (1 + _integrable(power))

    def forward(self, u: Time, schedule: NoiseSchedule, progress: float) -> tuple[Time, PerImage]:
        return 1 - (1 - u) ** self.root, torch.ones_like(u)


class UShaped(Density):
    """p(t) = 1 - depth + 3 depth (2t - 1)^2: more at both ends, changes the objective.

    With x = 2t - 1, depth x^3 + (1 - depth) x = 2u - 1; its one real root is written with sinh, which does not cancel.
    """

    def __init__(self, depth: float = 0.8):
        super().__init__()
        if not 0 < depth < 1:
            raise UserError(f"timesteps: {depth=} must lie between 0, which is even, and 1, which leaves no middle")
        self.size = 2 * math.sqrt((1 - depth) / depth / 3)
        self.slope = 4 / (depth * self.size**3)

    def forward(self, u: Time, schedule: NoiseSchedule, progress: float) -> tuple[Time, PerImage]:
        x = self.size * ((self.slope * (2 * u - 1)).asinh() / 3).sinh()
        return ((1 + x) / 2).clamp(0, 1), torch.ones_like(u)


class Window(Density):
    """Even in t between two ends, nothing elsewhere: changes the objective.

    On a table, an end between two of its times counts as the later one.
    """

    def __init__(self, low: float = 0.0, high: float = 1.0):
        super().__init__()
        if not 0 <= low < high <= 1:
            raise UserError(f"timesteps: the window needs 0 <= low < high <= 1, not {low=}, {high=}")
        self.low, self.high = low, high

    def forward(self, u: Time, schedule: NoiseSchedule, progress: float) -> tuple[Time, PerImage]:
        return self.low + (self.high - self.low) * u, torch.ones_like(u)

    def check(self, schedule: NoiseSchedule) -> None:
        if not isinstance(schedule, Table):
            return
        nearest = min((math.floor(self.low * schedule.steps + 1e-3) + 1) / schedule.steps, 1.0)
        if nearest > self.high + 1e-3 / schedule.steps:
            raise UserError(
                f"timesteps: the window low={self.low}, high={self.high} holds none of the schedule's times i/T, "
                f"T={schedule.steps}: set high to the nearest, {nearest:g}"
            )


def _inside(u: Time) -> Time:
    """Away from the ends, where quantiles are infinite."""
    return u.clamp(1e-6, 1 - 1e-6)


def _normal(u: Time) -> Time:
    return torch.special.ndtri(_inside(u))


def _integrable(power: float) -> float:
    if power <= -1:
        raise UserError(f"timesteps: {power=} must lie above -1; 0 is even in t")
    return power
