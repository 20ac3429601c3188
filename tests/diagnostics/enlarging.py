"""Super-resolution in closed form: a network that returns the small image enlarged, plus a share of x_t."""

from dataclasses import replace
from functools import partial

import torch
from torch import nn

from smallbatch.data.images import enlarged, shrunk
from smallbatch.denoiser import Continuous, Denoiser
from smallbatch.diagnostics.diagnostic import Part
from smallbatch.networks.network import Network
from smallbatch.notation import Batch, Condition, Image, ImageSpec, Keep, Output, Time
from smallbatch.predictions import X0
from tests import diagnostics
from tests.leaves import SCHEDULES

SIZE, LOW = 16, 4


class Interpolating(Network):
    classes = 0

    def __init__(self, spec: ImageSpec, outputs: int, share: float = 0.0):
        super().__init__()
        self.low_size, self.share = spec.low_size, nn.Parameter(torch.tensor(share))

    def forward(self, x: Image, clock: Time, condition: Condition, keep: Keep | None = None) -> Output:
        return enlarged(condition.image, x.shape[-1], "bicubic") + self.share * x


def interpolating(share=0.0, channels=3):
    network = partial(Interpolating, share=share)
    return Denoiser(network, SCHEDULES["cosine"], X0(), Continuous(), ImageSpec(channels, SIZE, 0, LOW))


def held_out(count=6, channels=3):
    x0 = torch.rand(count, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    return Part(count, lambda numbers: Batch(x0[numbers], Condition(None, None, shrunk(x0[numbers], LOW))))


def case_of(*denoisers, batch=4):
    """Runs a, b, ... that enlarge held-out images."""
    part = held_out()
    told = lambda numbers: part.around(numbers).condition  # noqa: E731
    return replace(diagnostics.case_of(*denoisers, batch=batch), held_out=part, told=told)
