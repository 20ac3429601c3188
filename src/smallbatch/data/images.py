"""Images as they are stored, 0..255, and as everything else sees them, -1..1."""

import torch
import torch.nn.functional as F

from smallbatch.notation import Image, Pixels


def to_float(pixels: Pixels) -> Image:
    return pixels.float() / 127.5 - 1


def to_pixels(x: Image) -> Pixels:
    """The inverse of `to_float`; what lies outside [-1, 1] is clamped."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def shrunk(x: Image, size: int) -> Image:
    """Every pixel the mean of those that it stands for: how guided-diffusion makes what its upsamplers start from."""
    return F.interpolate(x, size=(size, size), mode="area")
