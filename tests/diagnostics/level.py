"""A network of one weight, whose gradients, Hessian and best value are known."""

from functools import partial

import torch
from torch import nn

from smallbatch.denoiser import Continuous, Denoiser
from smallbatch.networks.network import Network
from smallbatch.notation import Condition, Image, ImageSpec, Keep, Output, Time


class Level(Network):
    """Says the same value everywhere, whatever it sees."""

    classes = 0

    def __init__(self, spec: ImageSpec, outputs: int):
        super().__init__()
        self.maps = outputs * spec.channels
        self.value = nn.Parameter(torch.zeros(()))

    def forward(self, x: Image, clock: Time, condition: Condition, keep: Keep | None = None) -> Output:
        return self.value.expand(len(x), self.maps, *x.shape[2:])


def level_denoiser(schedule, prediction, value=0.0):
    denoiser = Denoiser(partial(Level), schedule, prediction, Continuous(), ImageSpec(1, 8, 0))
    nn.init.constant_(denoiser.network.value, value)
    return denoiser
