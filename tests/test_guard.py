"""Loss and gradients that are not finite."""

import pytest
import torch

from smallbatch.errors import UserError
from smallbatch.guard import Guard
from smallbatch.notation import Observed


def observed(loss, logsnr):
    loss, logsnr = torch.tensor(loss), torch.tensor(logsnr)
    nought = torch.zeros_like(loss)
    return Observed(nought, nought, logsnr, loss, weighted=loss, slope=loss, pooled=loss, factor=loss[:, None])


@pytest.mark.parametrize(
    "loss, norm, bin",
    [
        ([1.0, torch.nan, 1.0], 1.0, "+2..+4"),
        ([1.0, 2.0, torch.inf], 1.0, "-6..-4"),
        ([9.0, 2.0, 1.0], torch.inf, "+0..+2"),
    ],
)
def test_the_first_bad_step_and_the_bin_of_its_worst_row_are_named(loss, norm, bin):
    guard, logsnr, good = Guard(), [0.5, 3.0, -5.0], torch.tensor(1.0)
    guard.watch(1, observed([1.0, 1.0, 1.0], logsnr), good)
    guard.check()
    guard.watch(2, observed(loss, logsnr), torch.tensor(norm))
    guard.watch(3, observed([torch.nan] * 3, [9.0] * 3), good)
    with pytest.raises(UserError, match="step 2;") as raised:
        guard.check()
    assert bin in str(raised.value)
