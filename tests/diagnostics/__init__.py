"""Cases of small denoisers and images, for the tests of the diagnostics."""

from functools import partial
from pathlib import Path

import torch

from smallbatch.denoiser import Continuous, Denoiser
from smallbatch.diagnostics.diagnostic import Case, Part, Subject
from smallbatch.generation import of_class
from smallbatch.notation import Batch, Condition, ImageSpec
from smallbatch.sampler import Sampler, Trailing
from smallbatch.solvers import DDIM
from smallbatch.weightings import Plain
from tests.tiny import Tiny


class Saying(Denoiser):
    """Estimates every image as one of a single value, the same from any noise: a value for each head."""

    def __init__(self, schedule, prediction, *values):
        super().__init__(partial(Tiny), schedule, prediction, Continuous(), ImageSpec(1, 8, 3))
        self.values = values

    def forward(self, x_t, level, condition, keep=None):
        maps = []
        for value, head in zip(self.values, self.prediction.heads.values(), strict=True):
            a, b = head.basis(level)
            maps.append(a * value + b * (x_t - level.alpha * value) / level.sigma)
        return torch.cat(maps, dim=1)


def part_of(images):
    """Image i is of class i % 3."""
    return Part(len(images), lambda numbers: Batch(images[numbers], Condition(numbers % 3)))


def case_of(*denoisers, images=None, weighting=None, seed=0, batch=64, folder=Path(".")):
    """Runs a, b, ... that look at `images`, by default 24 random ones."""
    images = torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1 if images is None else images
    runs = zip("abcdefghij", denoisers, strict=False)
    subjects = [Subject(name, denoiser, weighting or Plain(), folder) for name, denoiser in runs]
    told, sampler = of_class(torch.arange(64) % 3), Sampler(DDIM(), Trailing(), steps=4)
    part = part_of(images)
    return Case(subjects, part, part, told, sampler, seed, batch)
