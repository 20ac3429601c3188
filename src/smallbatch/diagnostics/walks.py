"""Sampling watched: what the denoiser takes the image for, at every level on the way."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from smallbatch.denoiser import Denoiser
from smallbatch.diagnostics.diagnostic import Case
from smallbatch.generation import Numbers, Told
from smallbatch.notation import Condition, Denoised, NoiseLevel
from smallbatch.randomness import SampleNoise
from smallbatch.sampler import Sampler
from smallbatch.wrappers import heard


class Walk(NamedTuple):
    """From noise to data, the first answer of every step, at the level where it starts. The last x0 is the image."""

    t: Float[Tensor, " steps"]
    logsnr: Float[Tensor, " steps"]
    x0: Float[Tensor, "steps b c h w"]


@torch.no_grad()
def watched(denoiser: Denoiser, sampler: Sampler, noise: SampleNoise, condition: Condition) -> Walk:
    answers, first = [], []

    def note(level: NoiseLevel, answer: Denoised) -> None:
        answers.append((level.t[0], answer.x0))

    for _ in sampler.walk(heard(sampler.denoise(denoiser, condition), note), denoiser.schedule, noise):
        first.append(answers[0])
        answers.clear()
    t, x0 = (torch.stack(part) for part in zip(*first, strict=True))
    return Walk(t, denoiser.schedule.logsnr(t), x0)


def walks(case: Case, denoiser: Denoiser, told: Told, numbers: Numbers, what: str) -> Iterator[tuple[Numbers, Walk]]:
    """Of the samples of these numbers, as many at once as the case allows."""
    parts, spec = numbers.split(case.batch), denoiser.spec
    for some in case.track(parts, what, len(parts)):
        noise = SampleNoise(case.seed, some.tolist(), (spec.channels, spec.size, spec.size), case.device)
        yield some, watched(denoiser, case.sampler, noise, told(some).to(case.device))
