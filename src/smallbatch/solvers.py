"""Solvers: a one-step rule from one noise level to the next, and the one loop that drives it to the clean image."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch

from smallbatch.errors import UserError
from smallbatch.notation import Coefficient, Denoise, Image, NoiseLevel

Memory = Any  # what a multistep rule carries from step to step; None at the start
Point = tuple[Image, NoiseLevel]  # the denoiser's x0 at a level
Noise = Callable[[], Image]  # fresh noise for this step, drawn only by the rules that use it
Stir = Callable[[Image, NoiseLevel, Noise], tuple[Image, NoiseLevel]]  # before a step: up to a noisier level, or not


class Solver(ABC):
    @abstractmethod
    def step(
        self, denoise: Denoise, x: Image, now: NoiseLevel, then: NoiseLevel, memory: Memory, noise: Noise
    ) -> tuple[Image, Memory]: ...


class DDIM(Solver):
    """eta = 0: deterministic; eta = 1: DDPM's ancestral sampling. Song et al. 2020 (2010.02502), eqs. 12, 16."""

    def __init__(self, eta: float = 0.0):
        if not 0 <= eta <= 1:
            raise UserError(f"solver: {eta=} must lie between 0 (deterministic) and 1 (ancestral)")
        self.eta = eta

    def step(
        self, denoise: Denoise, x: Image, now: NoiseLevel, then: NoiseLevel, memory: Memory, noise: Noise
    ) -> tuple[Image, Memory]:
        x0, eps, _ = denoise(x, now)
        if self.eta == 0:
            return then.mix(x0, eps), None
        fall = now.logsnr - then.logsnr
        fresh = self.eta * then.sigma * (-torch.expm1(fall)).sqrt()
        kept = then.sigma * (1 - self.eta**2 + self.eta**2 * fall.exp()).sqrt()  # sigma^2 - fresh^2 would cancel
        return then.alpha * x0 + kept * eps + fresh * noise(), None


class Ancestral(Solver):
    """DDPM's posterior, on any path. Ho et al. 2020 (2006.11239), eqs. 6-7, section 3.2.

    Its log variance lies between the posterior's (`variance` 0, "small") and beta (1, "large"), or where the denoiser
    has learned that it lies: Nichol & Dhariwal 2021 (2102.09672), eq. 15.
    """

    def __init__(self, variance: float = 0.0):
        if not 0 <= variance <= 1:
            raise UserError(f"solver: {variance=} must lie between 0 (the posterior's) and 1 (beta)")
        self.variance = variance

    def step(
        self, denoise: Denoise, x: Image, now: NoiseLevel, then: NoiseLevel, memory: Memory, noise: Noise
    ) -> tuple[Image, Memory]:
        x0, eps, learned = denoise(x, now)
        fraction = self.variance if learned is None else learned
        fall = (now.logsnr - then.logsnr).clamp(max=0)
        share = -torch.expm1(fall)  # beta / sigma_now^2 on the unit circle; 1 - share would cancel
        std = then.sigma * share.sqrt() * (now.unit.sigma / then.unit.sigma) ** fraction
        return then.mix(x0, (fall / 2).exp() * eps) + std * noise(), None


class Heun(Solver):
    """Trapezoidal rule on d(x / alpha) = eps d(sigma / alpha). Karras et al. 2022 (2206.00364), algorithm 1."""

    def step(
        self, denoise: Denoise, x: Image, now: NoiseLevel, then: NoiseLevel, memory: Memory, noise: Noise
    ) -> tuple[Image, Memory]:
        x0, eps, _ = denoise(x, now)
        slope = (eps + denoise(then.mix(x0, eps), then).eps) / 2
        rise = then.sigma / then.alpha - now.sigma / now.alpha
        return then.alpha * (x / now.alpha + rise * slope), None


class DPMpp2M(Solver):
    """DPM-Solver++, two-step multistep. Lu et al. 2022 (2211.01095), algorithm 2."""

    def step(
        self, denoise: Denoise, x: Image, now: NoiseLevel, then: NoiseLevel, memory: Memory, noise: Noise
    ) -> tuple[Image, Memory]:
        x0 = denoise(x, now).x0
        return _two_step(x, x0, now, then, memory), (x0, now)


class UniPC(Solver):
    """DPMpp2M, each of its points corrected by what the denoiser says there: third order at no further call.

    Zhao et al. 2023 (2302.04867), algorithms 1, 2 on x0 with B_2(h): UniP-2 and UniC-2, UniC-1 for the second point.
    """

    def step(
        self, denoise: Denoise, x: Image, now: NoiseLevel, then: NoiseLevel, memory: Memory, noise: Noise
    ) -> tuple[Image, Memory]:
        x0, before = denoise(x, now).x0, None
        if memory is not None:
            start, before, two_before = memory
            x = _corrected(start, x0, now, before, two_before)
        return _two_step(x, x0, now, then, before), (x, (x0, now), before)


def _rise(now: NoiseLevel, then: NoiseLevel) -> Coefficient:
    """h: how much ln(alpha / sigma) rises."""
    return (then.logsnr - now.logsnr) / 2


def _two_step(x: Image, x0: Image, now: NoiseLevel, then: NoiseLevel, before: Point | None) -> Image:
    """To `then`, with x0 on a straight line through `before`; constant where there is none."""
    h, towards = _rise(now, then), x0
    if before is not None:
        x0_before, level_before = before
        towards = x0 + h / (2 * _rise(level_before, now)) * (x0 - x0_before)
    return then.sigma / now.sigma * x - then.alpha * torch.expm1(-h) * towards


def _corrected(x: Image, x0: Image, now: NoiseLevel, before: Point, two_before: Point | None) -> Image:
    """From `before` to `now` once more, with x0 on the parabola through three points; on a line through two.

    The integral of e^(r h - h) r^n h over r in [0, 1] is I0 = 1 - e^-h, I1 = 1 - I0 / h, I2 = 1 - 2 I1 / h.
    """
    x0_before, level = before
    h, change = _rise(level, now), x0 - x0_before
    i0 = -torch.expm1(-h)
    bend = i0 / 2 * change
    if two_before is not None:
        x0_two_before, level_two_before = two_before
        back = _rise(level_two_before, level) / h
        square = (x0_two_before - x0_before + back * change) / (back * (1 + back))
        i1 = 1 - i0 / h
        bend = i1 * (change - square) + (1 - 2 * i1 / h) * square
    return now.sigma / level.sigma * x + now.alpha * (i0 * x0_before + bend)


def still(x: Image, now: NoiseLevel, noise: Noise) -> tuple[Image, NoiseLevel]:
    return x, now


def integrate(
    denoise: Denoise,
    solver: Solver,
    x: Image,
    levels: Sequence[NoiseLevel],
    noise: Callable[[int], Image],
    stir: Stir = still,
) -> Iterator[Image]:
    """Yields x after every step, then the clean image that the denoiser sees from the last level.

    `levels` fall from noise to data; `noise(k)` is the fresh noise of step k = 1, 2, ..., `noise(-k)` of its stirring.
    """
    memory = None
    for k, (now, then) in enumerate(pairwise(levels), start=1):
        x, start = stir(x, now, lambda k=k: noise(-k))
        x, memory = solver.step(denoise, x, start, then, memory if start is now else None, lambda k=k: noise(k))
        yield x
    x, last = stir(x, levels[-1], lambda: noise(-len(levels)))
    yield denoise(x, last).x0
