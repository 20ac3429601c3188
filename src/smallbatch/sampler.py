"""How a denoiser is used: a grid of noise levels, a solver, and guidance."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch

from smallbatch.denoiser import Denoiser
from smallbatch.errors import UserError
from smallbatch.notation import Condition, Image, Time
from smallbatch.schedules import NoiseSchedule
from smallbatch.solvers import Solver, integrate
from smallbatch.wrappers import clipped, guided


class Grid(ABC):
    """The times at which the denoiser is called, from noise to data. After the last one the image is clean."""

    @abstractmethod
    def __call__(self, schedule: NoiseSchedule, steps: int, device: torch.device) -> Time: ...


class UniformTime(Grid):
    """Even in t, from 1 down to 1 / steps; on tables, evenly spaced indices."""

    def __call__(self, schedule: NoiseSchedule, steps: int, device: torch.device) -> Time:
        return torch.linspace(1, 1 / steps, steps, device=device)


class Karras(Grid):
    """Even in sigma^(1/rho). Karras et al. 2022 (2206.00364), eq. 5; sigma stands for sigma / alpha.

    The ends are those given, or the schedule's own where it does not reach so far.
    """

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0):
        self.sigma_min, self.sigma_max, self.rho = sigma_min, sigma_max, rho

    def __call__(self, schedule: NoiseSchedule, steps: int, device: torch.device) -> Time:
        ends = (-schedule.logsnr(torch.tensor([1.0, 0.0], device=device)) / 2).exp().tolist()
        high, low = (min(max(end, self.sigma_min), self.sigma_max) ** (1 / self.rho) for end in ends)
        sigma = torch.linspace(high, low, steps, device=device) ** self.rho
        return schedule.time(-2 * sigma.log())


class Sampler:
    """`guidance_interval` is in log-SNR; `clip` bounds the image estimate at every step, None leaves it free."""

    def __init__(
        self,
        solver: Solver,
        grid: Grid,
        steps: int,
        guidance: float = 1.0,
        guidance_interval: Sequence[float] = (-torch.inf, torch.inf),
        clip: float | None = 1.0,
    ):
        if not isinstance(steps, int) or steps < 1:
            raise UserError(f"sampler: {steps=} must be a whole number, at least 1")
        if len(guidance_interval) != 2:
            raise UserError(f"sampler: {guidance_interval=} needs two ends of log-SNR, the lower first")
        self.solver, self.grid, self.steps, self.clip = solver, grid, steps, clip
        self.guidance, self.guidance_interval = guidance, tuple(guidance_interval)

    def times(self, schedule: NoiseSchedule, device: torch.device) -> Time:
        """The grid as the schedule stands at it, each time once."""
        times = schedule.snap(self.grid(schedule, self.steps, device))
        if (times.diff() >= 0).any():
            raise UserError(f"sampler: steps={self.steps} visits a noise level twice; take fewer steps or another grid")
        return times

    def trajectory(self, denoiser: Denoiser, noise: Callable[[int], Image], condition: Condition) -> Iterator[Image]:
        """x after every step; the last is the image. noise(0) is where it starts, noise(k) is fresh for step k."""
        start = noise(0)
        levels = [denoiser.schedule(t.expand(len(start))) for t in self.times(denoiser.schedule, start.device)]
        denoise = guided(denoiser, condition, self.guidance, self.guidance_interval)
        if self.clip is not None:
            denoise = clipped(denoise, self.clip)
        yield from integrate(denoise, self.solver, levels[0].sigma * start, levels, noise)

    @torch.no_grad()
    def __call__(self, denoiser: Denoiser, noise: Callable[[int], Image], condition: Condition) -> Image:
        *_, x0 = self.trajectory(denoiser, noise, condition)
        return x0
