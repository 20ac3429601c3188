"""Held-out error at fixed points of log-SNR: comparable between predictions, weightings and schedules."""

import torch
from jaxtyping import Float
from torch import Tensor

from smallbatch.denoiser import Denoiser
from smallbatch.notation import Batch, Image, NoiseLevel, PerImage
from smallbatch.randomness import SampleNoise

LOW, HIGH, MEAN, STD = -9.0, 9.0, 2.4, 2.4  # EDM's training density at data std 1/2, cut


def points(n: int) -> PerImage:
    """n log-SNR in the middle of n slots of equal mass of N(2.4, 2.4^2) cut to [-9, 9], in float32."""
    ends = torch.special.ndtr((torch.tensor([LOW, HIGH], dtype=torch.float64) - MEAN) / STD)
    slots = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return (MEAN + STD * torch.special.ndtri(torch.lerp(*ends, slots))).float()


@torch.no_grad()
def held_out_errors(denoiser: Denoiser, batch: Batch, indices: list[int], logsnr: PerImage) -> Float[Tensor, "b 3"]:
    """Mean squared error of x0, eps and v at each point; its noise depends on the point's index alone.

    Tables take their nearest level.
    """
    x0 = batch.x0
    level = denoiser.schedule(denoiser.schedule.time(logsnr.to(x0)))
    eps = SampleNoise(0, indices, tuple(x0.shape[1:]), x0.device)(0)
    return errors(denoiser.denoise(level.mix(x0, eps), level, batch.condition).x0, x0, level)


def errors(estimate: Image, x0: Image, level: NoiseLevel) -> Float[Tensor, "b 3"]:
    """Mean squared error of x0, eps and v that an estimate of x0 implies: 1, SNR and 1 + SNR times that of x0."""
    error, snr = (estimate - x0).square().mean(dim=(1, 2, 3)), level.logsnr.flatten().exp()
    return torch.stack([error, snr * error, (1 + snr) * error], dim=1)
