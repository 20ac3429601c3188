"""A transformer block that hears the clock, and where there is a text, its memory. Sehwag et al. 2024 (2407.15811)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from smallbatch.networks.bias_free import NormedAttention, Start, SwiGLU, norm, rounded
from smallbatch.networks.experts import ExpertChoice
from smallbatch.networks.layers import Embedding, Tokens, zero_
from smallbatch.networks.memory import Memory


class Common(NamedTuple):
    """What all blocks of one network share."""

    told: int  # width of what the clock, the label and the text say in one vector
    reads: bool  # hears a text's memory
    head_width: int
    multiple: int  # of all feed-forward widths
    experts: int
    capacity: float
    std: float  # of weights before training, where nothing smaller is asked


def says(told: int, numbers: int) -> nn.Module:
    """What the embedding says to the tokens: nothing at first."""
    return nn.Sequential(nn.GELU(approximate="tanh"), zero_(nn.Linear(told, numbers)))


def modulated(tokens: Tokens, shift: Tensor, scale: Tensor) -> Tokens:
    return tokens * (1 + scale) + shift


class Hears(nn.Module):
    """Adds what the tokens hear of a text: ungated and unmodulated."""

    def __init__(self, width: int, head_width: int, start: Start):
        super().__init__()
        self.norm, self.attention = norm(width), NormedAttention(width, width, head_width, start)

    def forward(self, tokens: Tokens, memory: Memory) -> Tokens:
        return tokens + self.attention(self.norm(tokens), memory.tokens, memory.heard)


class Block(nn.Module):
    """Tokens hear each other, then the text, and are then worked on one by one; what the embedding says gates it.

    `attention` is the width of all heads of self-attention together; those of cross-attention are as wide as the block.
    Both begin with `start`.
    """

    def __init__(self, width: int, attention: int, feed_forward: nn.Module, start: Start, common: Common):
        super().__init__()
        self.says = says(common.told, 6 * width)
        self.norm_attention, self.norm_feed_forward = norm(width), norm(width)
        self.attention = NormedAttention(width, attention, common.head_width, start)
        self.hears = Hears(width, common.head_width, start) if common.reads else None
        self.feed_forward = feed_forward

    def forward(self, tokens: Tokens, told: Embedding, memory: Memory | None) -> Tokens:
        shift, scale, gate, shift_after, scale_after, gate_after = self.says(told)[:, None].chunk(6, dim=2)
        normed = modulated(self.norm_attention(tokens), shift, scale)
        tokens = tokens + gate * self.attention(normed, normed)
        if self.hears is not None:
            tokens = self.hears(tokens, memory)
        normed = modulated(self.norm_feed_forward(tokens), shift_after, scale_after)
        return tokens + gate_after * self.feed_forward(normed)


def dense(width: int, attention_ratio: float, mlp_ratio: float, start: Start, common: Common) -> Block:
    """With a gated feed-forward, of two thirds the width because it has three matrices."""
    hidden = rounded(2 * int(width * mlp_ratio) / 3, common.multiple)
    attention = attention_width(width, attention_ratio, common.head_width)
    return Block(width, attention, SwiGLU(width, hidden, start), start, common)


def sparse(width: int, attention_ratio: float, mlp_ratio: float, start: Start, common: Common) -> Block:
    """With experts that choose their tokens."""
    hidden = rounded(width * mlp_ratio, common.multiple)
    experts = ExpertChoice(width, hidden, common.experts, common.capacity, start)
    return Block(width, attention_width(width, attention_ratio, common.head_width), experts, start, common)


def attention_width(width: int, ratio: float, head_width: int) -> int:
    """An even number of heads, at least `ratio` of the width together."""
    return width if ratio == 1 else rounded(width * ratio, 2 * head_width)


def kinds(depth: int, experts: int) -> list[Callable[..., Block]]:
    """Every second block has experts, if any has."""
    return [sparse if experts and number % 2 else dense for number in range(depth)]


def alike(width: int, depth: int, mlp_ratio: float, after: int, common: Common) -> list[Block]:
    """Blocks of one size, whose outputs start as small as those of block number `after`."""
    return [kind(width, 1, mlp_ratio, start_of(after, common.std), common) for kind in kinds(depth, common.experts)]


def widening(width: int, depth: int, attention: Sequence[float], mlp: Sequence[float], common: Common) -> list[Block]:
    """Blocks whose ratios to the width go evenly from the first's to the last's, which never has experts."""
    ratios = np.linspace(*zip(attention, mlp, strict=True), depth).tolist()
    made = zip([*kinds(depth - 1, common.experts), dense], ratios, strict=True)
    return [kind(width, *ratio, start_of(i, common.std), common) for i, (kind, ratio) in enumerate(made, start=1)]


def start_of(number: int, std: float) -> Start:
    """Of block 1, 2 ...: the later, the less it adds, so that the sum grows slowly."""
    return Start(std, std / (2 * number) ** 0.5)
