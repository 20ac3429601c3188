"""Standard errors of whatever is estimated from groups that were drawn alike."""

from collections.abc import Callable

import torch
from torch import Tensor


def jackknifed(estimate: Callable[[list[int]], Tensor], groups: int) -> tuple[Tensor, Tensor]:
    """What all groups say, and its standard error from leaving out each in turn. Tukey 1958."""
    everyone = list(range(groups))
    without = torch.stack([estimate([one for one in everyone if one != left]) for left in everyone])
    spread = (without - without.mean(dim=0)).square().mean(dim=0) * (groups - 1)
    return estimate(everyone), spread.sqrt()


def between_groups(products: Tensor) -> Tensor:
    """(..., groups, groups) -> (...): the mean of products of different groups, whose noise is not the same."""
    groups = products.shape[-1]
    return (products.sum(dim=(-2, -1)) - products.diagonal(dim1=-2, dim2=-1).sum(dim=-1)) / (groups * (groups - 1))
