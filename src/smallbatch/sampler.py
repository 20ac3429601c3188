"""How a denoiser is used: a grid of noise levels, a solver, churn, and guidance."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from smallbatch.churn import Churn
from smallbatch.denoiser import Denoiser
from smallbatch.errors import UserError, refuse_unless_positive
from smallbatch.notation import Condition, Denoise, Image, Time
from smallbatch.schedules import NoiseSchedule
from smallbatch.solvers import Solver, integrate
from smallbatch.tables import Table
from smallbatch.wrappers import clipped, guided


class Grid(ABC):
    """The times at which the denoiser is called, from noise to data. After the last one the image is clean."""

    @abstractmethod
    def __call__(self, schedule: NoiseSchedule, steps: int, device: torch.device) -> Time: ...


class Trailing(Grid):
    """Even in t, from 1 down to 1 / steps; on tables, even in their indices. Lin et al. 2023 (2305.08891), sec. 3.3."""

    def __call__(self, schedule: NoiseSchedule, steps: int, device: torch.device) -> Time:
        return torch.linspace(1, 1 / steps, steps, device=device)


class UniformLogSNR(Grid):
    """Even in log-SNR between two ends, or the schedule's own. Lu et al. 2022 (2206.00927)."""

    def __init__(self, low: float = -10.0, high: float = 10.0):
        if not low < high:
            raise UserError(f"grid: {low=} must lie below {high=}")
        self.low, self.high = low, high

    def __call__(self, schedule: NoiseSchedule, steps: int, device: torch.device) -> Time:
        return schedule.time(torch.linspace(*_ends(schedule, self.low, self.high, device), steps, device=device))


class Karras(Grid):
    """Even in sigma^(1/rho). Karras et al. 2022 (2206.00364), eq. 5; sigma stands for sigma / alpha.

    The ends are those given, or the schedule's own where it does not reach so far.
    """

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0):
        refuse_unless_positive("grid", sigma_min=sigma_min, rho=rho)
        if not sigma_min < sigma_max:
            raise UserError(f"grid: {sigma_min=} must lie below {sigma_max=}")
        self.sigma_min, self.sigma_max, self.rho = sigma_min, sigma_max, rho

    def __call__(self, schedule: NoiseSchedule, steps: int, device: torch.device) -> Time:
        ends = _ends(schedule, -2 * math.log(self.sigma_max), -2 * math.log(self.sigma_min), device)
        roots = [math.exp(-end / 2 / self.rho) for end in ends]
        return schedule.time(-2 * self.rho * torch.linspace(*roots, steps, device=device).log())


class Respaced(Grid):
    """Evenly spaced indices of a table, its first and last included: guided-diffusion's respacing.

    Nichol & Dhariwal 2021 (2102.09672), section 4.
    """

    def __call__(self, schedule: NoiseSchedule, steps: int, device: torch.device) -> Time:
        last = _indices(schedule, "respaced") - 1
        return _at(torch.linspace(last, 0, steps, dtype=torch.float64).round(), last + 1, device)


class Strided(Grid):
    """Every so many-th index of a table, its first included and seldom its last: guided-diffusion's "ddim25".

    Song et al. 2020 (2010.02502), appendix D.2.
    """

    def __call__(self, schedule: NoiseSchedule, steps: int, device: torch.device) -> Time:
        count = _indices(schedule, "strided")
        stride = math.ceil(count / steps)
        index = torch.arange(0, count, stride, dtype=torch.float64).flip(0)
        if len(index) != steps:
            fits = f"{len(index)} or {math.ceil(count / (stride - 1))}" if stride > 1 else str(count)
            raise UserError(f"sampler/grid=strided: no whole stride visits {steps=} of {count}: use {fits}")
        return _at(index, count, device)


def _indices(schedule: NoiseSchedule, grid: str) -> int:
    if not isinstance(schedule, Table):
        name = type(schedule).__name__
        raise UserError(f"sampler/grid={grid} needs a table, and {name} is none: choose sampler/grid=trailing")
    return schedule.steps


def _at(index: Tensor, count: int, device: torch.device) -> Time:
    return ((index + 1) / count).float().to(device)


def _ends(schedule: NoiseSchedule, low: float, high: float, device: torch.device) -> list[float]:
    """Log-SNR from noise to data: the given ends, or the schedule's own where it does not reach so far."""
    own = schedule.logsnr(torch.tensor([1.0, 0.0], device=device))
    return own.clamp(low, high).tolist()


CALM = Churn()


class Sampler:
    """`guidance_interval` is in log-SNR; `clip` bounds the image estimate at every step, None leaves it free.

    Latents are never bounded: `clip` is of pixels.
    """

    def __init__(
        self,
        solver: Solver,
        grid: Grid,
        steps: int,
        guidance: float = 1.0,
        guidance_interval: Sequence[float] = (-torch.inf, torch.inf),
        clip: float | None = 1.0,
        churn: Churn = CALM,
    ):
        for name, part, kind in (("solver", solver, Solver), ("grid", grid, Grid), ("churn", churn, Churn)):
            if not isinstance(part, kind):
                raise UserError(f"sampler.{name}={part} is a group: choose it as sampler/{name}={part}")
        if not isinstance(steps, int) or steps < 1:
            raise UserError(f"sampler: {steps=} must be a whole number, at least 1")
        if len(guidance_interval) != 2:
            raise UserError(f"sampler: {guidance_interval=} needs two ends of log-SNR, the lower first")
        self.solver, self.grid, self.steps, self.clip, self.churn = solver, grid, steps, clip, churn
        self.guidance, self.guidance_interval = guidance, tuple(guidance_interval)

    def times(self, schedule: NoiseSchedule, device: torch.device) -> Time:
        """The grid as the schedule stands at it, each time once."""
        times = schedule.snap(self.grid(schedule, self.steps, device))
        if (times.diff() >= 0).any():
            raise UserError(f"sampler: steps={self.steps} visits a noise level twice; take fewer steps or another grid")
        return times

    def denoise(self, denoiser: Denoiser, condition: Condition) -> Denoise:
        """What the solver asks: the denoiser under this guidance and clipping."""
        denoise = guided(denoiser, condition, self.guidance, self.guidance_interval)
        free = self.clip is None or denoiser.spec.latents
        return denoise if free else clipped(denoise, self.clip)

    def walk(
        self, denoise: Denoise, schedule: NoiseSchedule, noise: Callable[[int], Image], origin: Image | float = 0.0
    ) -> Iterator[Image]:
        """x after every step; the last is the image. Starts from `origin` under noise(0) at the first level.

        See `integrate` for the rest of the noise.
        """
        start = noise(0)
        levels = [schedule(t.expand(len(start))) for t in self.times(schedule, start.device)]
        x = levels[0].sigma * start + levels[0].alpha * origin
        yield from integrate(denoise, self.solver, x, levels, noise, self.churn(schedule, self.steps))

    @torch.no_grad()
    def __call__(self, denoiser: Denoiser, noise: Callable[[int], Image], condition: Condition) -> Image:
        *_, x0 = self.walk(self.denoise(denoiser, condition), denoiser.schedule, noise)
        return x0
