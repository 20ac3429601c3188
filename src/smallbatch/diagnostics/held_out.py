"""Held-out points: rows of noise levels, and in every row several images, each with noise of its own."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from smallbatch.diagnostics.diagnostic import Case
from smallbatch.errors import UserError
from smallbatch.notation import Batch

Measure = Callable[[Int[Tensor, " b"], Batch], Float[Tensor, "b columns"]]
Points = Float64[Tensor, "rows each columns"]
PerRow = Float64[Tensor, " rows"]


def several(diagnostic: str, images: int) -> int:
    if not isinstance(images, int) or images < 2:
        raise UserError(
            f"diagnostics.{diagnostic}.images={images} must be a whole number, at least 2, to have a standard error"
        )
    return images


def over_points(case: Case, what: str, rows: int, each: int, measure: Measure) -> Points:
    """Point p lies in row p // each, and is also the number of its noise; `measure` takes the points and their images.

    A row's images are spread over the whole held-out part, which may be sorted, and move on by one from row to row.
    """
    points = torch.arange(rows * each)
    numbers = points // each + points % each * case.held_out.count // each
    found = []
    for mine in case.track(points.split(case.batch), what, math.ceil(len(points) / case.batch)):
        found.append(measure(mine, case.held_out.around(numbers[mine])).double().cpu())
    return torch.cat(found).unflatten(0, (rows, each))


def standard_error(x: Float64[Tensor, "rows each ..."]) -> Float64[Tensor, "rows ..."]:
    """Of the mean over `each`."""
    return x.std(dim=1) / math.sqrt(x.shape[1])


def relative(x: Float64[Tensor, "rows each"], to: Float64[Tensor, "rows each"]) -> tuple[PerRow, PerRow]:
    """mean(x) / mean(to) - 1 of every row, and its standard error by the delta method: the points are pairs."""
    base = to.mean(dim=1)
    ratio = x.mean(dim=1) / base
    return ratio - 1, standard_error(x - ratio[:, None] * to) / base
