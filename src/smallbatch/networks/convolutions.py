"""Convolutional blocks that hear one vector per image."""

import math
from abc import ABC, abstractmethod

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from smallbatch.networks.layers import Attention, Embedding, zero_

Maps = Float[Tensor, "b width y x"]
NewMaps = Float[Tensor, "b new_width new_y new_x"]


def group_norm(width: int) -> nn.GroupNorm:
    """32 groups, as published; fewer where 32 does not divide the width."""
    return nn.GroupNorm(math.gcd(32, width), width)


def conv(old: int, new: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(old, new, 3, stride=stride, padding=1)


class Modulation(nn.Module, ABC):
    """Normalisation that hears the embedding through `says` numbers per channel."""

    says: int

    def __init__(self, width: int, embedding: int):
        super().__init__()
        self.project = nn.Sequential(nn.SiLU(), nn.Linear(embedding, self.says * width))
        self.norm = group_norm(width)

    @abstractmethod
    def forward(self, h: Maps, told: Embedding) -> Maps: ...


class Shift(Modulation):
    says = 1

    def forward(self, h: Maps, told: Embedding) -> Maps:
        return self.norm(h + self.project(told)[:, :, None, None])


class ScaleShift(Modulation):
    """Feature-wise scale and shift. Perez et al. 2018 (1709.07871), eq. 2, around a scale of 1."""

    says = 2

    def forward(self, h: Maps, told: Embedding) -> Maps:
        scale, shift = self.project(told)[:, :, None, None].chunk(2, dim=1)
        return self.norm(h) * (1 + scale) + shift


class Block(nn.Module):
    """A residual block that hears the embedding between its two convolutions, and resamples before the first."""

    def __init__(
        self,
        old: int,
        new: int,
        embedding: int,
        modulation: type[Modulation],
        dropout: float,
        resample: nn.Module,
    ):
        super().__init__()
        self.enter = nn.Sequential(group_norm(old), nn.SiLU(), resample, conv(old, new))
        self.modulate = modulation(new, embedding)
        self.leave = nn.Sequential(nn.SiLU(), nn.Dropout(dropout), zero_(conv(new, new)))
        self.skip = nn.Sequential(resample, nn.Identity() if old == new else nn.Conv2d(old, new, 1))

    def forward(self, x: Maps, told: Embedding) -> NewMaps:
        return self.skip(x) + self.leave(self.modulate(self.enter(x), told))


class Untold(nn.Sequential):
    """Layers that do not hear the embedding, among blocks that do."""

    def forward(self, x: Maps, told: Embedding) -> NewMaps:
        return super().forward(x)


class Told(nn.ModuleList):
    """Blocks in a row, each given the same embedding."""

    def forward(self, x: Maps, told: Embedding) -> NewMaps:
        for block in self:
            x = block(x, told)
        return x


class SpatialAttention(nn.Module):
    """Every pixel attends to every other; a branch that starts at zero."""

    def __init__(self, width: int, heads: int, head_order: str):
        super().__init__()
        self.norm, self.attention = group_norm(width), Attention(width, heads, head_order)
        zero_(self.attention.out)

    def forward(self, x: Maps, told: Embedding) -> Maps:
        tokens = self.attention(rearrange(self.norm(x), "b c y x -> b (y x) c"))
        return x + rearrange(tokens, "b (y x) c -> b c y x", y=x.shape[2])
