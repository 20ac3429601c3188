"""Images by number: image i depends on (seed, i) alone, not on the batch, nor on how many devices share the work."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from smallbatch.denoiser import Denoiser
from smallbatch.notation import Condition, Image
from smallbatch.randomness import SampleNoise
from smallbatch.sampler import Sampler

Numbers = Int[Tensor, " b"]
Told = Callable[[Numbers], Condition]  # what the network is told of the images of these numbers
Whose = Callable[[Numbers], Numbers]  # the image whose noise each of these images gets
Pictured = Callable[[Image], Image]  # what a denoiser draws, as it looks


def of_class(labels: Int[Tensor, " n"] | None) -> Told:
    """Image i is of class labels[i]; of none, where there are none."""
    return lambda numbers: Condition(None if labels is None else labels[numbers])


def own(numbers: Numbers) -> Numbers:
    return numbers


def one(numbers: Numbers) -> Numbers:
    """All that of image 0: how frames of a film are best drawn."""
    return torch.zeros_like(numbers)


def as_it_is(x: Image) -> Image:
    return x


def generate(
    denoiser: Denoiser,
    sampler: Sampler,
    told: Told,
    numbers: Numbers,
    seed: int,
    batch: int,
    whose: Whose = own,
    pictured: Pictured = as_it_is,
) -> Iterator[tuple[Numbers, Image]]:
    """`batch` at a time, on the device where the denoiser is."""
    spec, device = denoiser.spec, next(denoiser.parameters()).device
    for some in numbers.split(batch):
        noise = SampleNoise(seed, whose(some).tolist(), (spec.channels, spec.size, spec.size), device)
        yield some, pictured(sampler(denoiser, noise, told(some).to(device)))
