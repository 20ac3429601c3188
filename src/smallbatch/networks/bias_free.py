"""Layers without biases: a norm, attention with normed queries and keys, a gated feed-forward."""

from typing import NamedTuple

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from smallbatch.networks.layers import Tokens

EPS = 1e-6  # of all norms

Read = Float[Tensor, "b read d"]
Heard = Bool[Tensor, "b read"]  # false where nobody listens


class Start(NamedTuple):
    """Standard deviations of a branch's weights before training."""

    std: float
    out_std: float  # of those by which it joins the others


def norm(width: int) -> nn.LayerNorm:
    """With a gain and no shift."""
    return nn.LayerNorm(width, eps=EPS, bias=False)


def linear(width: int, to: int, std: float) -> nn.Linear:
    layer = nn.Linear(width, to, bias=False)
    nn.init.trunc_normal_(layer.weight, std=std)
    return layer


class NormedAttention(nn.Module):
    """What tokens hear of a memory, which may be themselves, through heads that together are `inner` wide.

    Queries and keys are brought to mean 0 and variance 1 over all heads together, without gains.
    """

    def __init__(self, width: int, inner: int, head_width: int, start: Start):
        super().__init__()
        assert inner % head_width == 0, f"{head_width=} does not divide {inner=}"
        self.head_width = head_width
        self.q, self.kv = linear(width, inner, start.std), linear(width, 2 * inner, start.std)
        self.out = linear(inner, width, start.out_std)

    def forward(self, tokens: Tokens, memory: Read, heard: Heard | None = None) -> Tokens:
        k, v = self.kv(memory).chunk(2, dim=2)
        q, k = (F.layer_norm(x, x.shape[2:], eps=EPS).to(v.dtype) for x in (self.q(tokens), k))
        q, k, v = (rearrange(x, "b n (h e) -> b h n e", e=self.head_width) for x in (q, k, v))
        where = None if heard is None else heard[:, None, None]
        return self.out(rearrange(F.scaled_dot_product_attention(q, k, v, where), "b h n e -> b n (h e)"))


class SwiGLU(nn.Module):
    """Feed-forward with a gate. Shazeer 2020 (2002.05202)."""

    def __init__(self, width: int, hidden: int, start: Start):
        super().__init__()
        self.gate, self.enter = linear(width, hidden, start.std), linear(width, hidden, start.out_std)
        self.out = linear(hidden, width, start.out_std)

    def forward(self, tokens: Tokens) -> Tokens:
        return self.out(F.silu(self.gate(tokens)) * self.enter(tokens))


def rounded(width: float, to: int) -> int:
    """The next multiple."""
    return -(-int(width) // to) * to
