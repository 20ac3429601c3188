"""Means in bins that forget: what everything adaptive remembers."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from smallbatch.errors import refuse_unless_positive


class Running(nn.Module):
    """Means of what fell into each bin; a row counts half once the bin has seen its share of `halflife_images` more.

    A bin's share is one in `bins`. `prior` (bins, ...) counts as `prior_rows` rows seen in every bin at the start.
    """

    total: Tensor
    weight: Tensor

    def __init__(self, bins: int, halflife_images: float, prior: Tensor | None = None, prior_rows: float = 0.0):
        super().__init__()
        refuse_unless_positive("adaptive", bins=bins, halflife_images=halflife_images)
        self.bins, self.halflife_images = bins, halflife_images
        prior = torch.zeros(bins) if prior is None else prior
        self.register_buffer("total", prior.float() * prior_rows)
        self.register_buffer("weight", torch.full((bins,), float(prior_rows)))

    @property
    def mean(self) -> Float[Tensor, "bins ..."]:
        """0 in a bin that has seen nothing."""
        return self.total / _beside(self.weight, self.total).clamp(min=1e-30)

    @property
    def complete(self) -> Tensor:
        """Whether every bin has seen something; a tensor, so that nobody waits for the device."""
        return (self.weight > 0).all()

    @torch.no_grad()
    def update(self, bin: Int[Tensor, " b"], value: Float[Tensor, "b ..."]) -> None:
        """Sums by matrix product: the same on every run, where index_add_ on a GPU is not."""
        hot = F.one_hot(bin, self.bins).to(self.total)
        rows = hot.sum(dim=0)
        keep = 0.5 ** (rows * self.bins / self.halflife_images)
        sums = torch.tensordot(hot.T, value.to(hot), dims=1)
        self.total.mul_(_beside(keep, self.total)).add_(sums)
        self.weight.mul_(keep).add_(rows)


def interpolate(rows: Float[Tensor, "bins n"], place: Float[Tensor, " b"]) -> Float[Tensor, "b n"]:
    """Straight lines between rows, `place` counted in rows from 0; beyond the ends the first and the last row."""
    place = place.to(rows).clamp(0, len(rows) - 1)
    below = place.floor().clamp(max=len(rows) - 2).long()
    return torch.lerp(rows[below], rows[below + 1], (place - below)[:, None])


def _beside(per_bin: Tensor, values: Tensor) -> Tensor:
    """(bins,) -> (bins, 1, ...), to multiply `values`."""
    return per_bin.view(-1, *[1] * (values.ndim - 1))
