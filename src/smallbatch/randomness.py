"""Every random draw that matters, keyed by what it is for, never by when or where it happens.

No draw here reads the global RNG: a run that is killed, resumed, or split over more processes draws the same numbers.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Fill = Callable[..., Tensor]  # (shape, generator=, device=) -> tensor, as torch.rand and torch.randn


def key(*parts: object) -> int:
    """A 63-bit seed for any tuple of plain values."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*parts: object, device: torch.device | str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(key(*parts))


def seed_layers(*parts: object, device: torch.device) -> None:
    """Keys the global generator of one device, for library layers that take none, such as dropout.

    torch.manual_seed would reach every kind of device, and formats a stack trace for each that is not in use.
    """
    torch.default_generator.manual_seed(key(*parts))
    if device.type == "cuda":
        torch.cuda.manual_seed(key(*parts))


@dataclass(frozen=True)
class Step:
    """Where training stands: one micro-batch of one optimizer step, seen from one rank."""

    seed: int
    index: int  # optimizer steps done before this one
    images: int  # rows trained on before this step
    progress: float  # share of the budget spent, 0..1
    rank: int = 0
    ranks: int = 1
    micro: int = 0  # accumulation: micro-batch `micro` of `micros`
    micros: int = 1

    def rows(self, count: int) -> slice:
        """This micro-batch's `count` rows among those of the whole optimizer step."""
        start = (self.micro * self.ranks + self.rank) * count
        return slice(start, start + count)

    def draw(self, purpose: str, fill: Fill, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """This micro-batch's rows of a draw made for the whole step, whatever the ranks and micro-batches.

        `shape` (b, ...) is the micro-batch's; `fill` sees (b * micros * ranks, ...).
        """
        whole = (shape[0] * self.micros * self.ranks, *shape[1:])
        drawn = fill(whole, generator=generator(self.seed, purpose, self.index, device=device), device=device)
        return drawn[self.rows(shape[0])]


@dataclass(frozen=True)
class SampleNoise:
    """The noise of samples `indices`: draw k of sample i depends on (seed, i, k) alone. k = 0 starts the sampling."""

    seed: int
    indices: Sequence[int]
    shape: tuple[int, int, int]
    device: torch.device | str = "cpu"

    def __call__(self, k: int) -> Tensor:
        one = [torch.randn(self.shape, generator=generator(self.seed, "sample", i, k)) for i in self.indices]
        return torch.stack(one).to(self.device)
