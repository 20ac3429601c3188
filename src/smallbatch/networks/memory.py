"""What a network makes of a text: a memory that its tokens hear, and one vector for all of it."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from smallbatch.errors import UserError
from smallbatch.networks.bias_free import NormedAttention, Start, SwiGLU, norm, rounded
from smallbatch.networks.layers import Embedding, Tokens, sinusoid, zero_
from smallbatch.notation import Text, TextSpec

Real = Bool[Tensor, "b n"]
Features = Float[Tensor, "b n features"]

PADDING = {  # which places of a text are heard, of those that the mask says are real; None: all
    "heard": lambda real: None,
    "masked": lambda real: real | ~real.any(dim=1, keepdim=True),  # where none is real, all are alike
}


class Memory(NamedTuple):
    """A text as features of the network's own, and where they are heard; None: everywhere."""

    tokens: Tokens
    heard: Real | None


class Words(nn.Module):
    """A learned vector of each word, plus its place in the text."""

    def __init__(self, spec: TextSpec, width: int):
        super().__init__()
        self.of_word = nn.Embedding(spec.words, width)
        where = sinusoid(torch.arange(spec.length, dtype=torch.float32), width)
        self.register_buffer("where", where, persistent=False)

    def forward(self, value: Tensor) -> Features:
        return self.of_word(value) + self.where[: value.shape[1]]


class Reader(nn.Module):
    """A small transformer on token numbers or frozen features. A text that says nothing is features times 0.

    `pad="heard"` lets padding take part like any word, as published; "masked" leaves it out.
    """

    def __init__(self, spec: TextSpec, width: int, head_width: int, multiple: int, pad: str, std: float):
        super().__init__()
        if pad not in PADDING:
            raise UserError(f"network.pad={pad!r} is not known: use one of {', '.join(PADDING)}")
        self.spec, self.heard = spec, PADDING[pad]
        self.features = Words(spec, width) if spec.words else nn.Identity()
        self.enter = normed_mlp(spec.width or width, width, std)
        self.norm_attention, self.norm_feed_forward = norm(width), norm(width)
        self.attention = NormedAttention(width, width, head_width, Start(std, std))
        self.feed_forward = SwiGLU(width, rounded(2 * 4 * width / 3, multiple), Start(std, std))
        zero_(self.attention.out), zero_(self.feed_forward.out)
        self.pool = normed_mlp(width, width, std)

    def forward(self, text: Text) -> tuple[Memory, Embedding]:
        says = text.mask.any(dim=1)[:, None, None]
        tokens = self.enter(self.features(text.value) * says)
        heard = self.heard(text.mask)
        normed = self.norm_attention(tokens)
        tokens = tokens + self.attention(normed, normed, heard)
        tokens = tokens + self.feed_forward(self.norm_feed_forward(tokens))
        return Memory(tokens, heard), self.pool(mean_of(tokens, heard))

    def nothing(self, rows: int) -> Text:
        """What is said of images without a text."""
        mask = torch.zeros(rows, self.spec.length, dtype=torch.bool, device=self.pool[0].weight.device)
        return Text(mask.long() if self.spec.words else mask[..., None].expand(-1, -1, self.spec.width).float(), mask)


def normed_mlp(width: int, to: int, std: float) -> nn.Sequential:
    mlp = nn.Sequential(nn.Linear(width, to), nn.GELU(approximate="tanh"), norm(to), nn.Linear(to, to))
    return mlp.apply(narrow(std))


def narrow(std: float) -> Callable[[nn.Module], None]:
    """The start of all that embeds, for `apply`."""

    def narrow_(layer: nn.Module) -> None:
        if isinstance(layer, nn.Linear | nn.Embedding):
            nn.init.normal_(layer.weight, std=std)
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)

    return narrow_


def mean_of(tokens: Tokens, heard: Real | None) -> Embedding:
    if heard is None:
        return tokens.mean(dim=1)
    return (tokens * heard[:, :, None]).sum(dim=1) / heard.sum(dim=1, keepdim=True)
