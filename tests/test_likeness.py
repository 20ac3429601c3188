"""How alike two images are, by closed forms."""

import pytest
import torch

from smallbatch.data.images import to_float
from smallbatch.likeness import CAP, colour_drift, correlation, psnr, rmse, ssim


def flat(level):
    return to_float(torch.full((1, 3, 16, 16), level, dtype=torch.uint8))


@pytest.mark.parametrize("a, b", [(126, 129), (0, 40), (10, 250)])
def test_the_ssim_of_flat_images_is_wangs_luminance_term_of_grey_levels(a, b):
    c = (0.01 * 255) ** 2
    expected = torch.tensor([(2 * a * b + c) / (a**2 + b**2 + c)])
    torch.testing.assert_close(ssim(flat(a), flat(b)), expected, rtol=1e-4, atol=1e-4)


def test_levels_apart_are_counted_in_grey_levels_and_decibels():
    x, y = flat(100), flat(110)
    torch.testing.assert_close(rmse(x, y), torch.tensor([10.0]), rtol=1e-4, atol=0)
    torch.testing.assert_close(colour_drift(x, y), torch.tensor([10.0]), rtol=1e-4, atol=0)
    torch.testing.assert_close(psnr(x, y), 20 * torch.tensor([25.5]).log10(), rtol=1e-4, atol=0)
    assert psnr(x, x).item() == CAP and correlation(x, y).item() == 0


def test_correlation_ignores_brightness_and_contrast():
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(correlation(x, 0.3 * x - 0.5), torch.ones(2))
    torch.testing.assert_close(correlation(x, -x), -torch.ones(2))
