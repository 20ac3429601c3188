"""How a denoiser is used: a grid of noise levels, a solver, and guidance."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch

from smallbatch.denoiser import Denoiser, clipped, guided
from smallbatch.errors import UserError
from smallbatch.notation import Condition, Image, Time
from smallbatch.schedules import NoiseSchedule
from smallbatch.solvers import Solver, integrate


class Grid(ABC):
    """The times at which the denoiser is called, from noise to data. After the last one the image is clean."""

    @abstractmethod
    def __call__(self, schedule: NoiseSchedule, steps: int, device: torch.device) -> Time: ...


class UniformTime(Grid):
    """Even in t, from 1 down to 1 / steps; on tables, evenly spaced indices."""

    def __call__(self, schedule: NoiseSchedule, steps: int, device: torch.device) -> Time:
        return torch.linspace(1, 1 / steps, steps, device=device)


class Karras(Grid):
    """Even in sigma^(1/rho). Karras et al. 2022 (2206.00364), eq. 5; sigma stands for sigma / alpha on other paths."""

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0):
        self.sigma_min, self.sigma_max, self.rho = sigma_min, sigma_max, rho

    def __call__(self, schedule: NoiseSchedule, steps: int, device: torch.device) -> Time:
        ends = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        sigma = torch.linspace(*ends, steps, device=device) ** self.rho
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
        if steps < 1:
            raise UserError(f"sampler: {steps=} must be at least 1")
        self.solver, self.grid, self.steps, self.clip = solver, grid, steps, clip
        self.guidance, self.guidance_interval = guidance, tuple(guidance_interval)

    def trajectory(self, denoiser: Denoiser, noise: Callable[[int], Image], condition: Condition) -> Iterator[Image]:
        """x after every step; the last is the image. noise(0) is where it starts, noise(k) is fresh for step k."""
        start = noise(0)
        times = denoiser.schedule.snap(self.grid(denoiser.schedule, self.steps, start.device).to(start))
        if (times.diff() >= 0).any():
            raise UserError(f"sampler: steps={self.steps} visits a noise level twice; take fewer steps or another grid")
        levels = [denoiser.schedule(t.expand(len(start))) for t in times]
        denoise = guided(denoiser, condition, self.guidance, self.guidance_interval)
        if self.clip is not None:
            denoise = clipped(denoise, self.clip)
        yield from integrate(denoise, self.solver, levels[0].sigma * start, levels, noise)

    @torch.no_grad()
    def __call__(self, denoiser: Denoiser, noise: Callable[[int], Image], condition: Condition) -> Image:
        *_, x0 = self.trajectory(denoiser, noise, condition)
        return x0
