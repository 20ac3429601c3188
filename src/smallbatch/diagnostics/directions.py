"""Ways through the weights of a network, and the loss along them."""

import copy
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float64
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from smallbatch.denoiser import Denoiser
from smallbatch.diagnostics.stretches import Losses
from smallbatch.diagnostics.training_loss import Vector
from smallbatch.ema import trainable
from smallbatch.randomness import generator

Walk = Float64[Tensor, "positions stretches rows"]


def weights_of(network: nn.Module) -> Vector:
    return parameters_to_vector(trainable(network).values()).detach()


def filter_normalised(network: nn.Module, seed: int, number: int) -> Vector:
    """A random direction in which every filter, w[i] of a tensor w, is as long as the network's.

    Li et al. 2018 (1712.09913), section 4. Biases and scales, which are no filters, stay.
    """
    source = generator(seed, "direction", number)
    parts = [like_filters(weight.detach(), source) for weight in trainable(network).values()]
    return torch.cat([part.flatten() for part in parts])


def like_filters(weight: Tensor, source: torch.Generator) -> Tensor:
    if weight.ndim < 2:
        return torch.zeros_like(weight)
    filters = weight.flatten(1)
    drawn = torch.randn(filters.shape, generator=source).to(weight)
    return drawn * (filters.norm(dim=1) / drawn.norm(dim=1))[:, None]


def along(
    denoiser: Denoiser, direction: Vector, positions: Iterable[float], losses: Callable[[Denoiser], Losses]
) -> Walk:
    """At the denoiser's weights plus each position times the direction. The denoiser stays as it is."""
    moved, start = copy.deepcopy(denoiser), weights_of(denoiser.network)
    found = []
    for position in positions:
        vector_to_parameters(start + position * direction, trainable(moved.network).values())
        found.append(losses(moved))
    return torch.stack(found)
