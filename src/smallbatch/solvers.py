"""Solvers: a one-step rule from one noise level to the next, and the one loop that drives it to the clean image."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch

from smallbatch.notation import Denoise, Image, NoiseLevel

Memory = Any  # what a multistep rule carries from step to step; None at the start
Noise = Callable[[], Image]  # fresh noise for this step, drawn only by the rules that use it


class Solver(ABC):
    @abstractmethod
    def step(
        self, denoise: Denoise, x: Image, now: NoiseLevel, then: NoiseLevel, memory: Memory, noise: Noise
    ) -> tuple[Image, Memory]: ...


class DDIM(Solver):
    """eta = 0: deterministic; eta = 1: DDPM's ancestral sampling. Song et al. 2020 (2010.02502), eqs. 12, 16."""

    def __init__(self, eta: float = 0.0):
        self.eta = eta

    def step(
        self, denoise: Denoise, x: Image, now: NoiseLevel, then: NoiseLevel, memory: Memory, noise: Noise
    ) -> tuple[Image, Memory]:
        x0, eps, _ = denoise(x, now)
        if self.eta == 0:
            return then.mix(x0, eps), None
        fresh = self.eta * then.sigma * (-torch.expm1(now.logsnr - then.logsnr)).sqrt()
        kept = (then.sigma.square() - fresh.square()).clamp(min=0).sqrt()
        return then.alpha * x0 + kept * eps + fresh * noise(), None


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
        h = (then.logsnr - now.logsnr) / 2
        towards = x0
        if memory is not None:
            x0_before, h_before = memory
            towards = x0 + h / (2 * h_before) * (x0 - x0_before)
        return then.sigma / now.sigma * x - then.alpha * torch.expm1(-h) * towards, (x0, h)


def integrate(
    denoise: Denoise, solver: Solver, x: Image, levels: Sequence[NoiseLevel], noise: Callable[[int], Image]
) -> Iterator[Image]:
    """Yields x after every step, then the clean image that the denoiser sees from the last level.

    `levels` fall from noise to data; `noise(k)` is the fresh noise of step k = 1, 2, ...
    """
    memory = None
    for k, (now, then) in enumerate(pairwise(levels), start=1):
        x, memory = solver.step(denoise, x, now, then, memory, lambda k=k: noise(k))
        yield x
    yield denoise(x, levels[-1]).x0
