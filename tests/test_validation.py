"""Held-out error at fixed points."""

import pytest
import torch

from smallbatch.notation import Batch, Condition
from smallbatch.validation import HIGH, LOW, MEAN, STD, held_out_errors, points
from tests.leaves import PREDICTIONS, SCHEDULES
from tests.tiny import tiny_denoiser


def test_points_are_the_quantiles_of_the_cut_normal():
    logsnr = points(20_000).double()
    assert (logsnr > LOW).all() and (logsnr < HIGH).all() and (logsnr.diff() > 0).all()
    grid = torch.linspace(LOW, HIGH, 200_001, dtype=torch.float64)
    density = (-((grid - MEAN) ** 2) / (2 * STD**2)).exp()
    mean = (grid * density).sum() / density.sum()
    std = ((grid - mean).square() * density).sum().div(density.sum()).sqrt()
    assert abs(logsnr.mean() - mean) < 1e-3 and abs(logsnr.std() - std) < 1e-3


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_denoiser_that_says_zero_has_the_same_x0_error_everywhere(prediction, schedule):
    """The x0 error of a fixed image estimate depends on no prediction, and on no schedule."""
    denoiser = tiny_denoiser(SCHEDULES[schedule], PREDICTIONS[prediction])

    def zero(x_t, level, condition, keep=None):
        _, b = denoiser.prediction.basis(level)
        return b * x_t / level.sigma  # the output that decodes to x0 = 0

    denoiser.forward = zero
    x0 = torch.rand(6, 1, 8, 8) * 2 - 1
    measured = held_out_errors(denoiser, Batch(x0, Condition()), list(range(6)), torch.linspace(-6, 8, 6))
    torch.testing.assert_close(measured[:, 0], x0.square().mean(dim=(1, 2, 3)), rtol=2e-3, atol=1e-4)


def test_the_three_errors_stand_as_one_snr_and_one_plus_snr_and_repeat_exactly():
    denoiser, logsnr = tiny_denoiser(), torch.linspace(-6, 8, 6)
    batch = Batch(torch.rand(6, 1, 8, 8) * 2 - 1, Condition(torch.arange(6) % 3))
    x0, eps, v = held_out_errors(denoiser, batch, list(range(6)), logsnr).unbind(dim=1)
    torch.testing.assert_close(eps, logsnr.exp() * x0, rtol=1e-3, atol=0)
    torch.testing.assert_close(v, eps + x0)
    half = held_out_errors(denoiser, Batch(batch.x0[3:], Condition(batch.condition.label[3:])), [3, 4, 5], logsnr[3:])
    torch.testing.assert_close(half[:, 0], x0[3:])
