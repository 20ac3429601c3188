"""The smallest real network and denoiser, for tests of everything around them."""

from functools import partial

import torch
from torch import nn

from smallbatch.denoiser import Continuous, Denoiser
from smallbatch.networks.network import Network
from smallbatch.notation import Condition, Image, ImageSpec, Keep, Output, Time
from smallbatch.predictions import V
from tests.leaves import SCHEDULES


class Tiny(Network):
    """One convolution that hears the label and the clock as added maps."""

    def __init__(self, spec: ImageSpec, outputs: int):
        super().__init__()
        self.classes = spec.classes
        self.label = nn.Embedding(max(spec.classes, 1), spec.channels)
        self.conv = nn.Conv2d(spec.channels, outputs * spec.channels, 3, padding=1)

    def forward(self, x: Image, clock: Time, condition: Condition, keep: Keep | None = None) -> Output:
        h = x + torch.sin(clock / 1000)[:, None, None, None]
        if condition.label is not None:
            told = self.label(condition.label.clamp(min=0)) * (condition.label >= 0)[:, None]
            h = h + told[:, :, None, None]
        return self.conv(h)


def tiny_denoiser(schedule=SCHEDULES["cosine"], prediction=None, spec=ImageSpec(1, 8, 3), data_std=0.5):  # noqa: B008
    torch.manual_seed(0)
    return Denoiser(partial(Tiny), schedule, prediction or V(), Continuous(), spec, data_std)
