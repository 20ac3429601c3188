"""How alike two batches of images are, image by image."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from smallbatch.notation import Image, PerImage

RANGE = 2.0  # images are in [-1, 1]
GREY = 255 / RANGE  # grey levels per unit
CAP = 60.0
WINDOW = 7

Colour = Float[Tensor, "b c"]


def psnr(x: Image, y: Image) -> PerImage:
    """In dB, at most CAP: to round to 8 bits leaves 58.9."""
    return peak_signal_noise_ratio(x, y, data_range=RANGE, reduction="none", dim=(1, 2, 3)).clamp(max=CAP)


def rmse(x: Image, y: Image) -> PerImage:
    """In grey levels."""
    return GREY * (x - y).square().mean(dim=(1, 2, 3)).sqrt()


def correlation(x: Image, y: Image) -> PerImage:
    """Of the values of two images; 0 where one is of a single value."""
    x, y = x.flatten(1), y.flatten(1)
    return F.cosine_similarity(x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True))


def ssim(x: Image, y: Image) -> PerImage:
    """Wang et al. 2004, of values from 0 to 1, over even windows of 7 x 7, which fit images of 8 x 8 too."""
    x, y = ((one + 1) / RANGE for one in (x, y))  # two means of different signs would count as opposites
    return structural_similarity_index_measure(
        x, y, gaussian_kernel=False, kernel_size=WINDOW, reduction="none", data_range=1.0
    )


def colour(x: Image) -> Colour:
    """The mean of every channel, in grey levels from 0 to 255."""
    return GREY * (x.mean(dim=(2, 3)) + 1)


def colour_drift(x: Image, y: Image) -> PerImage:
    """How far the channels' means of x lie from those of y, in grey levels, averaged over the channels."""
    return (colour(x) - colour(y)).abs().mean(dim=1)
