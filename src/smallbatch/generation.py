"""Images by number: image i depends on (seed, i) alone, not on the batch, nor on how many devices share the work."""

from collections.abc import Iterator

from jaxtyping import Int
from torch import Tensor

from smallbatch.denoiser import Denoiser
from smallbatch.notation import Condition, Image
from smallbatch.randomness import SampleNoise
from smallbatch.sampler import Sampler

Numbers = Int[Tensor, " b"]


def generate(
    denoiser: Denoiser, sampler: Sampler, labels: Int[Tensor, " n"] | None, numbers: Numbers, seed: int, batch: int
) -> Iterator[tuple[Numbers, Image]]:
    """`batch` at a time; image i is of class labels[i]. On the device where the denoiser is."""
    spec, device = denoiser.spec, next(denoiser.parameters()).device
    for some in numbers.split(batch):
        noise = SampleNoise(seed, some.tolist(), (spec.channels, spec.size, spec.size), device)
        condition = Condition(None if labels is None else labels[some].to(device))
        yield some, sampler(denoiser, noise, condition)
