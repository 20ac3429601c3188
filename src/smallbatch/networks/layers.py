"""Blocks that every network shares: the clock, the label, attention, and branches that start at zero."""

import math
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from smallbatch.errors import UserError
from smallbatch.notation import Labels, Time

Embedding = Float[Tensor, "b embedding"]  # what the clock and the label say, one vector per image
Tokens = Float[Tensor, "b n d"]
Layer = TypeVar("Layer", bound=nn.Module)

ROWS = {  # how the outputs of one projection are shared out: s is query, key, value; h the head; e its features
    "heads_first": "b n (h s e) -> s b h n e",
    "qkv_first": "b n (s h e) -> s b h n e",
}


def zero_(layer: Layer) -> Layer:
    """Start a branch at zero, so that the sum it joins begins as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def xavier_(layer: nn.Module) -> None:
    """ViT's start of a linear layer. Dosovitskiy et al. 2020 (2010.11929)."""
    if isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def sinusoid(clock: Time, width: int, slowest: float = 10_000.0) -> Embedding:
    """Cosines, then sines, of the clock at `width / 2` geometric frequencies. Vaswani et al. 2017 (1706.03762), 3.5."""
    half = width // 2
    frequency = torch.exp(-math.log(slowest) * torch.arange(half, device=clock.device, dtype=torch.float32) / half)
    angle = clock.float()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class ClockAndLabel(nn.Module):
    """One vector per image: the clock through a small MLP, plus a row of a table where there are classes."""

    def __init__(self, width: int, embedding: int, classes: int, activation: Callable[[], nn.Module] = nn.SiLU):
        super().__init__()
        if width % 2:
            raise UserError(f"{width=} is odd, but the clock needs a sine for each cosine: use {width + 1}")
        self.width = width
        self.clock = nn.Sequential(nn.Linear(width, embedding), activation(), nn.Linear(embedding, embedding))
        self.label = nn.Embedding(classes, embedding) if classes else None

    def forward(self, clock: Time, label: Labels | None) -> Embedding:
        told = self.clock(sinusoid(clock, self.width))
        if self.label is None:
            return told
        label = torch.full_like(clock, -1, dtype=torch.long) if label is None else label
        return told + self.label(label.clamp(min=0)) * (label >= 0)[:, None]  # -1 = none


class Attention(nn.Module):
    """Multi-head self-attention over tokens; `qk_norm` makes what queries and keys of each head pass through."""

    def __init__(
        self,
        width: int,
        heads: int,
        head_order: str = "qkv_first",
        qk_norm: Callable[[int], nn.Module] = nn.Identity,
    ):
        super().__init__()
        if head_order not in ROWS:
            raise UserError(f"head_order={head_order!r} is not known: use one of {', '.join(ROWS)}")
        assert width % heads == 0, f"{heads=} do not divide {width=}"
        self.heads, self.rows = heads, ROWS[head_order]
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm_q, self.norm_k = qk_norm(width // heads), qk_norm(width // heads)

    def forward(self, tokens: Tokens) -> Tokens:
        q, k, v = rearrange(self.qkv(tokens), self.rows, s=3, h=self.heads)
        heard = F.scaled_dot_product_attention(self.norm_q(q), self.norm_k(k), v)
        return self.out(rearrange(heard, "b h n e -> b n (h e)"))


def refuse_part(name: str, part: int, of: str, whole: int) -> None:
    """Refuses a part that does not divide the whole."""
    if part < 1 or whole % part:
        fits = [divisor for divisor in range(1, whole + 1) if whole % divisor == 0]
        raise UserError(f"network.{name}={part} does not divide {of} {whole}: use one of {fits}")
