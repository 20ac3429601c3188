"""Images as they are stored, 0..255, and as everything else sees them, -1..1."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from smallbatch.notation import Image, Latents, Pixels


def to_float(stored: Pixels | Latents) -> Image:
    """Latents are what they are."""
    return stored.float() / 127.5 - 1 if stored.dtype == torch.uint8 else stored.float()


def to_pixels(x: Image) -> Pixels:
    """The inverse of `to_float`; what lies outside [-1, 1] is clamped."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def shrunk(x: Image, size: int) -> Float[Tensor, "b c size size"]:
    """Every pixel the mean of those that it stands for: how guided-diffusion makes what its upsamplers start from."""
    return F.interpolate(x, size=(size, size), mode="area")


def enlarged(x: Image, size: int, how: str) -> Float[Tensor, "b c size size"]:
    """`how`: nearest, bilinear or bicubic; bicubic overshoots, so that all is clamped to [-1, 1]."""
    smooth = {} if how == "nearest" else {"align_corners": False}
    return F.interpolate(x, size=(size, size), mode=how, **smooth).clamp(-1, 1)
