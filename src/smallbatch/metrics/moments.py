"""Mean and covariance of features that stream by."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from smallbatch.errors import UserError


class Moments(NamedTuple):
    """Mean and unbiased covariance, a sum over n - 1, of n feature vectors."""

    n: int
    mean: Float64[Tensor, " d"]
    covariance: Float64[Tensor, "d d"]


class MomentSums:
    """Sums of features x and of x x^T in disjoint blocks: row i of the whole run goes to block i % blocks.

    So the result depends, but for rounding, neither on batches nor on ranks. `blocks` times d^2 + d float64 are held,
    whatever the number of rows. Float32 or bfloat16 would not do: a small distance is what remains of large moments
    that cancel; and autocast leaves float64 alone. Nothing is subtracted before squaring, which costs as many of 16
    digits as (mean / standard deviation)^2 has.
    """

    count: Int[Tensor, " blocks"]
    total: Float64[Tensor, "blocks d"]
    outer: Float64[Tensor, "blocks d d"]

    def __init__(self, dimension: int, blocks: int = 1, device: torch.device | str = "cpu"):
        assert dimension >= 1 and blocks >= 1, f"{dimension=} {blocks=}"
        self.dimension, self.blocks, self.device = dimension, blocks, where_float64(device)
        with torch.inference_mode(False):  # else what is made inside it could not be added to outside
            self.count = torch.zeros(blocks, dtype=torch.long, device=self.device)
            self.total = torch.zeros(blocks, dimension, dtype=torch.float64, device=self.device)
            self.outer = torch.zeros(blocks, dimension, dimension, dtype=torch.float64, device=self.device)

    @torch.no_grad()
    def add(self, features: Float[Tensor, "b d"], rows: Int[Tensor, " b"]) -> None:
        """`rows` are the features' numbers in the whole run."""
        assert features.shape[1] == self.dimension, f"{features.shape=} {self.dimension=}"
        block = rows.cpu() % self.blocks
        rows_in = block.bincount(minlength=self.blocks)
        sorted_ = features.to(self.device).double()[block.argsort().to(self.device)]
        self.count += rows_in.to(self.device)
        for total, outer, x in zip(self.total, self.outer, sorted_.split(rows_in.tolist()), strict=True):
            if len(x):
                total.add_(x.sum(dim=0))
                outer.addmm_(x.T, x)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """All that is summed, to be summed in place over the ranks, once, when each has added its share."""
        return self.count, self.total, self.outer

    def moments(self) -> Moments:
        return _moments(int(self.count.sum()), self.total.sum(dim=0), self.outer.sum(dim=0))

    def without(self, block: int) -> Moments:
        """Of the rows of all other blocks."""
        n, total, outer = (whole.sum(dim=0) - whole[block] for whole in self.tensors())
        return _moments(int(n), total, outer)


def moments(features: Float[Tensor, "n d"]) -> Moments:
    """Of features that lie at hand."""
    sums = MomentSums(features.shape[1], device=features.device)
    sums.add(features, torch.arange(len(features)))
    return sums.moments()


def where_float64(device: torch.device | str) -> torch.device:
    """The device, or the CPU in place of one that has no float64 (MPS)."""
    device = torch.device(device)
    return torch.device("cpu") if device.type == "mps" else device


def _moments(n: int, total: Float64[Tensor, " d"], outer: Float64[Tensor, "d d"]) -> Moments:
    """Exactly symmetric, as sums of products are only to rounding."""
    if n < 2:
        raise UserError(f"n={n} is too small for a covariance: it needs at least 2 images")
    mean = total / n
    covariance = outer.addr(mean, total, alpha=-1) / (n - 1)
    return Moments(n, mean, (covariance + covariance.T) / 2)
