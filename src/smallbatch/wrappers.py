"""Functions that change how a denoiser is used, and give a Denoise: guidance, clipping, replacement, listening."""

from collections.abc import Callable
from functools import partial

import torch

from smallbatch.denoiser import Denoiser
from smallbatch.notation import Condition, Denoise, Denoised, Image, NoiseLevel


def guided(
    denoiser: Denoiser, condition: Condition, scale: float, interval: tuple[float, float] = (-torch.inf, torch.inf)
) -> Denoise:
    """Classifier-free guidance inside an interval of log-SNR. Ho & Salimans 2022 (2207.12598), eq. 6, scale = 1 + w.

    The interval: Kynkäänniemi et al. 2024 (2404.07724). The variance is the conditional branch's.
    """
    if scale == 1:
        return partial(denoiser.denoise, condition=condition)
    low, high = interval

    def denoise(x_t: Image, level: NoiseLevel) -> Denoised:
        told = denoiser.denoise(x_t, level, condition)
        inside = (low <= level.logsnr) & (level.logsnr <= high)
        if not inside.any():
            return told
        everyone = torch.ones(len(x_t), dtype=torch.bool, device=x_t.device)
        untold = denoiser.denoise(x_t, level, denoiser.network.forget(condition, everyone))
        weight = torch.where(inside, scale, 1.0)
        return Denoised(torch.lerp(untold.x0, told.x0, weight), torch.lerp(untold.eps, told.eps, weight), told.variance)

    return denoise


def clipped(denoise: Denoise, bound: float = 1.0) -> Denoise:
    """Keeps the image estimate in range and restates the noise to match. Ho et al. 2020 (2006.11239), section 3.2."""

    def inner(x_t: Image, level: NoiseLevel) -> Denoised:
        free = denoise(x_t, level)
        return level.unmix(x_t, free.x0.clamp(-bound, bound))._replace(variance=free.variance)

    return inner


def swapped(learned: Denoise, oracle: Denoise, low: float, high: float) -> Denoise:
    """The oracle where low <= t < high, the learned denoiser elsewhere."""

    def denoise(x_t: Image, level: NoiseLevel) -> Denoised:
        inside = ((low <= level.t) & (level.t < high))[:, None, None, None]
        told, known = learned(x_t, level), oracle(x_t, level)
        return Denoised(torch.where(inside, known.x0, told.x0), torch.where(inside, known.eps, told.eps), told.variance)

    return denoise


def heard(denoise: Denoise, note: Callable[[NoiseLevel, Denoised], None]) -> Denoise:
    """Tells `note` of every answer, in turn."""

    def inner(x_t: Image, level: NoiseLevel) -> Denoised:
        answer = denoise(x_t, level)
        note(level, answer)
        return answer

    return inner
