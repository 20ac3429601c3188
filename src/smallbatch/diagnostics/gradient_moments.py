"""Mean squares and means of gradients in bins of even time, and what a density that follows them would save."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from smallbatch.diagnostics.jackknife import between_groups
from smallbatch.notation import Observed
from smallbatch.proposals import Learned

GROUPS = 8  # of the rows of a bin, for standard errors
OF_BINS = ("rms", "mean", "within", "q optimal")
OF_ALL = ("rms", "mean", "within", "between", "saved by stratified", "saved by optimal")
PerBin = Float[Tensor, " bins"]


class Seen(NamedTuple):
    """Of the gradients of each group of rows in each bin: the mean square, and the products of the groups' means."""

    square: Float[Tensor, "bins groups"]
    product: Float[Tensor, "bins groups groups"]
    over_bins: Float[Tensor, "groups groups"]  # of the groups' means over all bins
    observed: Observed  # of all rows

    def moments(self, groups: list[int]) -> tuple[PerBin, PerBin, Float[Tensor, ""]]:
        """E|g|^2 and |E g|^2 of every bin, and |E g|^2 of all together."""
        product, over_bins = (products[..., groups, :][..., groups] for products in (self.product, self.over_bins))
        return self.square[:, groups].mean(dim=1), between_groups(product), between_groups(over_bins)

    def of_bins(self, groups: list[int]) -> Float[Tensor, "names bins"]:
        square, mean, _ = self.moments(groups)
        rms = square.sqrt()
        return torch.stack([rms, mean, square - mean, rms / rms.mean()])

    def of_all(self, groups: list[int], densities: Mapping[str, PerBin]) -> Float[Tensor, " names"]:
        """OF_ALL, and what each density saves."""
        square, mean, of_all = self.moments(groups)
        within, between = (square - mean).mean(), mean.mean() - of_all
        rms = square.sqrt()
        shares = [saved(square, of_all, q) for q in (rms / rms.mean(), *densities.values())]
        return torch.stack([square.mean().sqrt(), of_all, within, between, between / (within + between), *shares])

    def drawn_by(self, proposal: type[Learned]) -> PerBin:
        """The density that a proposal makes of these rows."""
        made = proposal(bins=len(self.square)).to(self.observed.u.device)
        made.observe(self.observed)
        return made.wanted().cpu()


def saved(square: PerBin, of_all: Float[Tensor, ""], q: PerBin) -> Float[Tensor, ""]:
    """The share of an even draw's variance: with density q, and the loss divided by it, E[|g|^2 / q] - |E g|^2."""
    return 1 - ((square / q).mean() - of_all) / (square.mean() - of_all)
