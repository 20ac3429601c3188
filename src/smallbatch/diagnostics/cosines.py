"""Cosines between mean gradients, of which noise neither adds to the length nor takes from the angle."""

import torch
from jaxtyping import Float
from torch import Tensor

from smallbatch.diagnostics.jackknife import between_groups, jackknifed

Square = Float[Tensor, "slots slots"]


def cosines(gradients: Float[Tensor, "groups slots weights"]) -> tuple[Square, Square]:
    """Between the expected gradients of every pair of slots, from those of independent groups, with standard errors.

    Products are taken between different groups. NaN where a gradient has no length, or would have none
    without one of the groups: it is noise.
    """
    flat = gradients.flatten(0, 1)
    gram = (flat @ flat.T).double().cpu().unflatten(1, gradients.shape[:2]).unflatten(0, gradients.shape[:2])
    products = gram.permute(1, 3, 0, 2)  # (slots, slots, groups, groups)

    def estimate(groups: list[int]) -> Square:
        product = between_groups(products[..., groups, :][..., groups])
        length = product.diagonal().sqrt()
        return product / torch.outer(length, length)

    cosine, error = jackknifed(estimate, len(gradients))
    return cosine.where(error.isfinite(), torch.nan), error
