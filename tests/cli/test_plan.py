"""What a run would cost."""

from functools import partial

import torch

from smallbatch.cli.plan import count, measure
from smallbatch.denoiser import Continuous, Denoiser
from smallbatch.networks.layers import Attention
from smallbatch.networks.network import Network
from smallbatch.notation import ImageSpec
from smallbatch.predictions import V
from tests.leaves import SCHEDULES
from tests.tiny import Tiny


class Attending(Network):
    """Pixels as 4 tokens of 8 numbers."""

    def __init__(self, spec, outputs):
        super().__init__()
        self.classes = 0
        self.attention = Attention(8, heads=2)

    def forward(self, x, clock, condition, keep=None):
        tokens = self.attention(x.view(len(x), 4, 8).requires_grad_())
        return tokens.view(x.shape)


def planned(network, spec):
    with torch.device("meta"):
        return Denoiser(partial(network), SCHEDULES["cosine"], V(), Continuous(), spec)


def test_a_convolution_costs_two_flops_per_multiply_add_three_times():
    denoiser = planned(Tiny, ImageSpec(1, 8, 3))
    flops, kept = measure(denoiser)
    assert flops == 3 * 2 * 9 * 64  # forward, gradient of the input, gradient of the weight
    assert kept >= 4 * 64 and count(denoiser.network) == 9 + 1 + 3


def test_attention_counts_its_projections_and_both_products():
    flops, _ = measure(planned(Attending, ImageSpec(2, 4, 0)))
    n, d = 4, 8
    assert flops == 3 * 2 * (n * d * 3 * d + n * d * d + 2 * n * n * d)
